//! Code of a hub that runs when a connection begins or ends.

use futures_util::future::{BoxFuture, FutureExt};

use super::{BindError, Context, Disconnected, HubError, Needed, State};

/// The event of [`Hub::on_connected`](crate::Hub::on_connected) hooks: a client has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected;

/// The event of [`Hub::on_resumed`](crate::Hub::on_resumed) hooks: a connection goes on on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed;

/// A parameter of a hook. `E` is the hook's event: [`Connected`], [`Resumed`] or
/// [`Disconnected`].
///
/// Implemented for [`Context`], for [`State`] and, in [`Hub::on_disconnected`](crate::Hub::on_disconnected) alone, for
/// [`Disconnected`]. Types of an application may be parameters too:
///
/// ```
/// use hubcast::hub::{Connected, FromHook};
/// use hubcast::{Context, Hub, HubError};
///
/// /// The client's value of `?room=`.
/// struct Room(String);
///
/// impl FromHook<Connected> for Room {
///     fn from_hook(context: &Context, _: &Connected) -> Result<Self, HubError> {
///         let room = context.connection().query("room");
///         room.map(|room| Self(room.to_owned())).ok_or_else(|| HubError::new("which room?"))
///     }
/// }
///
/// async fn enter(context: Context, Room(room): Room) -> Result<(), HubError> {
///     Ok(context.join(room).await?)
/// }
///
/// let hub = Hub::new("rooms").on_connected(enter);
/// ```
pub trait FromHook<E>: Sized + Send {
    /// Names the states that it takes from the hub.
    fn needs(needed: &mut Vec<Needed>) {
        let _ = needed;
    }

    /// Takes the parameter.
    ///
    /// # Errors
    /// An error is that of the hook: the hook does not run, and a new connection is closed.
    fn from_hook(context: &Context, event: &E) -> Result<Self, HubError>;
}

impl<E> FromHook<E> for Context {
    fn from_hook(context: &Context, _: &E) -> Result<Self, HubError> {
        Ok(context.clone())
    }
}

impl<E, T: Send + Sync + 'static> FromHook<E> for State<T> {
    fn needs(needed: &mut Vec<Needed>) {
        needed.push(Needed::of::<T>());
    }

    fn from_hook(context: &Context, _: &E) -> Result<Self, HubError> {
        Ok(context.state().map(State).ok_or(BindError::Missing)?) // there is one: the hub was checked
    }
}

impl FromHook<Disconnected> for Disconnected {
    fn from_hook(_: &Context, event: &Disconnected) -> Result<Self, HubError> {
        Ok(event.clone())
    }
}

/// The return type of a hub's hook: nothing, or a `Result` of nothing and [`HubError`].
pub trait HookOutcome: Send {
    /// The outcome.
    ///
    /// # Errors
    /// The hook's own error.
    fn into_outcome(self) -> Result<(), HubError>;
}

impl HookOutcome for () {
    fn into_outcome(self) -> Result<(), HubError> {
        Ok(())
    }
}

impl<E: Into<HubError> + Send> HookOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<(), HubError> {
        self.map_err(Into::into)
    }
}

/// An async function that runs when a connection begins or ends. Implemented for functions of up to eight parameters,
/// each a [`FromHook`]; `M` tells implementations apart and is never named by users.
#[diagnostic::on_unimplemented(
    message = "this function can't be a hook of a hub",
    note = "it must be async, take `Context`, `State` and, in `on_disconnected` alone, `Disconnected`, and return nothing or `Result<(), HubError>`"
)]
pub trait Hook<E, M>: Send + Sync + 'static {
    /// Names the states that the parameters take from the hub.
    fn needs(&self, needed: &mut Vec<Needed>);

    /// Takes the parameters and runs.
    fn run(&self, context: &Context, event: &E) -> BoxFuture<'static, Result<(), HubError>>;
}

macro_rules! hooks {
    ($(($($type:ident),*);)*) => { $(
        #[allow(non_snake_case, unused_variables)]
        impl<F, Fut, R, EV, $($type),*> Hook<EV, (R, $($type,)*)> for F
        where
            F: Fn($($type),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = R> + Send + 'static,
            R: HookOutcome,
            $($type: FromHook<EV>,)*
        {
            fn needs(&self, needed: &mut Vec<Needed>) {
                $($type::needs(needed);)*
            }

            fn run(&self, context: &Context, event: &EV) -> BoxFuture<'static, Result<(), HubError>> {
                $(let $type = match $type::from_hook(context, event) {
                    Ok(parameter) => parameter,
                    Err(error) => return std::future::ready(Err(error)).boxed(),
                };)*
                let running = self($($type),*);
                async move { running.await.into_outcome() }.boxed()
            }
        }
    )* };
}

hooks! {
    ();
    (A);
    (A, B);
    (A, B, C);
    (A, B, C, D);
    (A, B, C, D, G);
    (A, B, C, D, G, H);
    (A, B, C, D, G, H, I);
    (A, B, C, D, G, H, I, J);
}

/// A hook whose types are forgotten.
pub(crate) type ErasedHook<E> =
    Box<dyn Fn(&Context, &E) -> BoxFuture<'static, Result<(), HubError>> + Send + Sync>;

pub(crate) fn erase_hook<E: 'static, M>(hook: impl Hook<E, M>) -> ErasedHook<E> {
    Box::new(move |context, event| hook.run(context, event))
}
