//! Turns async functions into methods: each parameter is taken from the invocation by its type.

use std::fmt;

use futures_util::future::{BoxFuture, FutureExt};
use serde::de::DeserializeOwned;

use super::outcome::{IntoOutcome, IntoStream, ValueStream};
use super::upload::RawUpload;
use super::{Context, HubError, Needed, State, Upload};
use crate::protocol::{DataType, DecodeValueError, Encoding, Invocation, Value};

/// Tells implementations apart that Rust would otherwise take for overlapping. Named only by code that implements
/// [`FromInvocation`] for a type of their own.
pub mod marker {
    /// Taken from the next argument by serde.
    #[derive(Debug)]
    pub enum Argument {}
    /// The context of the call.
    #[derive(Debug)]
    pub enum Context {}
    /// Passed on as it was encoded.
    #[derive(Debug)]
    pub enum Raw {}
    /// A stream from the client.
    #[derive(Debug)]
    pub enum Upload {}
    /// Something that the hub was given.
    #[derive(Debug)]
    pub enum State {}
    /// A result that serde writes.
    #[derive(Debug)]
    pub enum Plain {}
    /// A result or an error.
    #[derive(Debug)]
    pub struct Fallible<M>(std::convert::Infallible, std::marker::PhantomData<M>);
}

/// One invocation on its way to a method: the source of a [`FromInvocation`].
///
/// ```
/// use hubcast::protocol::Value;
/// use hubcast::hub::{BindError, Call, FromInvocation, marker};
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// /// An argument in either of two forms: `[x, y]` or `{"x": …, "y": …}`.
/// struct Point(f64, f64);
///
/// #[derive(serde::Deserialize)]
/// struct Named { x: f64, y: f64 }
///
/// impl FromInvocation<marker::Raw> for Point {
///     const ARGUMENTS: usize = 1;
///
///     fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
///         let point: Value = call.next_argument()?;
///         if let Ok((x, y)) = point.decode() {
///             return Ok(Self(x, y));
///         }
///         let Named { x, y } = point.decode()?; // BindError::Type
///         Ok(Self(x, y))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hub = Hub::new("map").method("Sum", async |Point(x, y): Point| x + y);
/// let tester = HubTester::new(hub).await?;
/// let mut client = tester.connect().await;
/// assert_eq!(client.invoke::<f64>("Sum", ([1.5, 2.0],)).await, Ok(3.5));
/// # Ok(())
/// # }
/// ```
pub struct Call {
    context: Context,
    target: String,
    invocation_id: Option<String>,
    data_type: Option<DataType>,
    arguments: std::vec::IntoIter<Value>,
    uploads: std::vec::IntoIter<RawUpload>,
    encoding: Encoding,
}

impl Call {
    pub(crate) fn new(
        context: Context,
        invocation: Invocation,
        uploads: Vec<RawUpload>,
        encoding: Encoding,
    ) -> Self {
        Self {
            context,
            target: invocation.target,
            invocation_id: invocation.invocation_id,
            data_type: invocation.data_type,
            arguments: invocation.arguments.into_iter(),
            uploads: uploads.into_iter(),
            encoding,
        }
    }

    /// The name that the client called, as it wrote it.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The client's id for it. Without one the client wants no answer.
    #[must_use]
    pub fn invocation_id(&self) -> Option<&str> {
        self.invocation_id.as_deref()
    }

    /// The kind of the one argument, where the client's protocol names it: that of Web PubSub, and plain WebSockets.
    #[must_use]
    pub fn data_type(&self) -> Option<DataType> {
        self.data_type
    }

    /// How the client writes values.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The context of the call.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Takes the next argument.
    ///
    /// # Errors
    /// [`BindError::Missing`] when there is none.
    pub fn next_argument(&mut self) -> Result<Value, BindError> {
        self.arguments.next().ok_or(BindError::Missing)
    }

    fn check_counts(&self, arguments: usize, rest: bool, streams: usize) -> Result<(), BindError> {
        let provided = self.arguments.len();
        if provided < arguments || provided > arguments && !rest {
            return Err(BindError::Count {
                provided,
                expected: arguments,
            });
        }
        let provided = self.uploads.len();
        if provided != streams {
            return Err(BindError::Streams {
                provided,
                expected: streams,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// The reason why an invocation does not fit its method.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The number of arguments is not the number of parameters.
    #[error("Invocation provides {provided} argument(s) but target expects {expected}.")]
    Count {
        /// Arguments of the invocation.
        provided: usize,
        /// Parameters of the method.
        expected: usize,
    },
    /// The number of uploads is not the number of [`Upload`] parameters.
    #[error("Client sent {provided} stream(s), Hub method expects {expected}.")]
    Streams {
        /// Uploads of the invocation.
        provided: usize,
        /// [`Upload`] parameters of the method.
        expected: usize,
    },
    /// A parameter took more arguments than it had announced.
    #[error("Invocation provides too few arguments.")]
    Missing,
    /// An argument is not of the parameter's type.
    #[error(
        "Error binding arguments. Make sure that the types of the provided values match the types of the hub method being invoked."
    )]
    Type(#[from] DecodeValueError),
}

/// A parameter of a hub method. Implemented for [`Context`], [`State`], [`Upload`], [`Value`] (an argument as it was
/// encoded) and all that serde deserializes. Types of an application may be parameters too; `M` is one of [`marker`]'s
/// and tells implementations apart:
///
/// ```
/// use hubcast::hub::{BindError, Call, FromInvocation, marker};
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// /// The caller's user id, or `guest`.
/// struct Caller(String);
///
/// impl FromInvocation<marker::Context> for Caller {
///     const ARGUMENTS: usize = 0;
///
///     fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
///         let user = call.context().user();
///         Ok(Self(user.map_or("guest", |user| user.as_str()).to_owned()))
///     }
/// }
///
/// async fn greet(Caller(name): Caller, greeting: String) -> String {
///     format!("{greeting}, {name}!")
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("hall").method("Greet", greet)).await?;
/// let mut ann = tester.connect_as("ann").await;
/// assert_eq!(ann.invoke::<String>("Greet", ("Hello",)).await?, "Hello, ann!");
/// # Ok(())
/// # }
/// ```
pub trait FromInvocation<M>: Sized + Send {
    /// How many arguments it takes from the invocation.
    const ARGUMENTS: usize;
    /// True if it takes all arguments that are left, too. It must be the last parameter that takes any.
    const REST: bool = false;
    /// How many uploads it takes.
    const STREAMS: usize = 0;

    /// Names the states that it takes from the hub.
    fn needs(needed: &mut Vec<Needed>) {
        let _ = needed;
    }

    /// Takes the parameter.
    ///
    /// # Errors
    /// [`BindError`] when the arguments do not fit.
    fn from_invocation(call: &mut Call) -> Result<Self, BindError>;
}

impl<T: DeserializeOwned + Send> FromInvocation<marker::Argument> for T {
    const ARGUMENTS: usize = 1;

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        Ok(call.next_argument()?.decode()?)
    }
}

impl FromInvocation<marker::Context> for Context {
    const ARGUMENTS: usize = 0;

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        Ok(call.context.clone())
    }
}

impl<T: DeserializeOwned + 'static> FromInvocation<marker::Upload> for Upload<T> {
    const ARGUMENTS: usize = 0;
    const STREAMS: usize = 1;

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        call.uploads.next().map(Upload::new).ok_or(BindError::Missing)
    }
}

impl<T: Send + Sync + 'static> FromInvocation<marker::State> for State<T> {
    const ARGUMENTS: usize = 0;

    fn needs(needed: &mut Vec<Needed>) {
        needed.push(Needed::of::<T>());
    }

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        call.context.state().map(State).ok_or(BindError::Missing) // there is one: the hub was checked
    }
}

/// An async function that answers with one result. Implemented for functions of up to eight parameters, each a
/// [`FromInvocation`], that return an [`IntoOutcome`]; `M` tells implementations apart and is never named by users. See
/// [`Hub::method`](crate::Hub::method).
#[diagnostic::on_unimplemented(
    message = "this function can't be a hub method",
    note = "it must be async, take `Context` and types that serde deserializes, and return a type that serde serializes or `Result<_, HubError>`"
)]
pub trait Method<M>: Send + Sync + 'static {
    /// Arguments that a client must send.
    const ARGUMENTS: usize;
    /// Uploads that a client must send.
    const STREAMS: usize;

    /// Names the states that the parameters take from the hub.
    fn needs(&self, needed: &mut Vec<Needed>);

    /// Takes the parameters and begins.
    ///
    /// # Errors
    /// [`BindError`] when the invocation does not fit the parameters.
    fn begin(&self, call: Call) -> Result<BoxFuture<'static, Result<Value, HubError>>, BindError>;
}

/// An async function that answers with a stream. Implemented for functions of up to eight parameters, each a
/// [`FromInvocation`], that return an [`IntoStream`]; `M` tells implementations apart and is never named by users. See
/// [`Hub::stream`](crate::Hub::stream).
#[diagnostic::on_unimplemented(
    message = "this function can't be a streaming hub method",
    note = "it must be async, take `Context` and types that serde deserializes, and return a `Stream` of items that serde serializes"
)]
pub trait StreamMethod<M>: Send + Sync + 'static {
    /// Arguments that a client must send.
    const ARGUMENTS: usize;
    /// Uploads that a client must send.
    const STREAMS: usize;

    /// Names the states that the parameters take from the hub.
    fn needs(&self, needed: &mut Vec<Needed>);

    /// Takes the parameters and begins.
    ///
    /// # Errors
    /// [`BindError`] when the invocation does not fit the parameters.
    fn begin(&self, call: Call) -> Result<BoxFuture<'static, Result<ValueStream, HubError>>, BindError>;
}

macro_rules! methods {
    ($(($($type:ident $marker:ident),*);)*) => { $(
        #[allow(non_snake_case, unused_mut, unused_variables)]
        impl<F, Fut, R, MR, $($type, $marker),*> Method<(MR, R, $(($type, $marker),)*)> for F
        where
            F: Fn($($type),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = R> + Send + 'static,
            R: IntoOutcome<MR> + 'static,
            $($type: FromInvocation<$marker>,)*
        {
            const ARGUMENTS: usize = 0 $(+ $type::ARGUMENTS)*;
            const STREAMS: usize = 0 $(+ $type::STREAMS)*;

            fn needs(&self, needed: &mut Vec<Needed>) {
                $($type::needs(needed);)*
            }

            fn begin(&self, mut call: Call) -> Result<BoxFuture<'static, Result<Value, HubError>>, BindError> {
                call.check_counts(Self::ARGUMENTS, false $(|| $type::REST)*, Self::STREAMS)?;
                let encoding = call.encoding;
                $(let $type = $type::from_invocation(&mut call)?;)*
                let running = self($($type),*);
                Ok(async move { running.await.into_outcome(encoding) }.boxed())
            }
        }

        #[allow(non_snake_case, unused_mut, unused_variables)]
        impl<F, Fut, S, MS, $($type, $marker),*> StreamMethod<(MS, S, $(($type, $marker),)*)> for F
        where
            F: Fn($($type),*) -> Fut + Send + Sync + 'static,
            Fut: Future<Output = S> + Send + 'static,
            S: IntoStream<MS> + 'static,
            $($type: FromInvocation<$marker>,)*
        {
            const ARGUMENTS: usize = 0 $(+ $type::ARGUMENTS)*;
            const STREAMS: usize = 0 $(+ $type::STREAMS)*;

            fn needs(&self, needed: &mut Vec<Needed>) {
                $($type::needs(needed);)*
            }

            fn begin(&self, mut call: Call) -> Result<BoxFuture<'static, Result<ValueStream, HubError>>, BindError> {
                call.check_counts(Self::ARGUMENTS, false $(|| $type::REST)*, Self::STREAMS)?;
                let encoding = call.encoding;
                $(let $type = $type::from_invocation(&mut call)?;)*
                let running = self($($type),*);
                Ok(async move { running.await.into_values(encoding) }.boxed())
            }
        }
    )* };
}

methods! {
    ();
    (A MA);
    (A MA, B MB);
    (A MA, B MB, C MC);
    (A MA, B MB, C MC, D MD);
    (A MA, B MB, C MC, D MD, E ME);
    (A MA, B MB, C MC, D MD, E ME, G MG);
    (A MA, B MB, C MC, D MD, E ME, G MG, H MH);
    (A MA, B MB, C MC, D MD, E ME, G MG, H MH, I MI);
}

/// A method whose types are forgotten.
pub(crate) trait ErasedMethod: Send + Sync {
    fn begin(&self, call: Call) -> Result<BoxFuture<'static, Result<Value, HubError>>, BindError>;
}

/// A streaming method whose types are forgotten.
pub(crate) trait ErasedStream: Send + Sync {
    fn begin(&self, call: Call) -> Result<BoxFuture<'static, Result<ValueStream, HubError>>, BindError>;
}

struct Erased<F, M>(F, std::marker::PhantomData<fn() -> M>);

impl<F: Method<M>, M: 'static> ErasedMethod for Erased<F, M> {
    fn begin(&self, call: Call) -> Result<BoxFuture<'static, Result<Value, HubError>>, BindError> {
        self.0.begin(call)
    }
}

impl<F: StreamMethod<M>, M: 'static> ErasedStream for Erased<F, M> {
    fn begin(&self, call: Call) -> Result<BoxFuture<'static, Result<ValueStream, HubError>>, BindError> {
        self.0.begin(call)
    }
}

pub(crate) fn erase<M: 'static>(method: impl Method<M>) -> Box<dyn ErasedMethod> {
    Box::new(Erased(method, std::marker::PhantomData))
}

pub(crate) fn erase_stream<M: 'static>(method: impl StreamMethod<M>) -> Box<dyn ErasedStream> {
    Box::new(Erased(method, std::marker::PhantomData))
}
