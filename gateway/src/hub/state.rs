//! Data that hub code keeps: for the whole hub, and for one connection.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

type SharedValue = Arc<dyn Any + Send + Sync>;

/// A parameter of a hub method: something that was given to the hub with [`Hub::state`](crate::Hub::state).
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use hubcast::hub::State;
/// use hubcast::Hub;
///
/// async fn count(calls: State<AtomicU64>) -> u64 {
///     calls.fetch_add(1, Ordering::Relaxed)
/// }
///
/// let hub = Hub::new("counter").state(AtomicU64::new(0)).method("Count", count);
/// ```
pub struct State<T>(pub Arc<T>);

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.0).finish()
    }
}

/// A type that a parameter needs from its hub, as a [`FromInvocation`](crate::hub::FromInvocation) or
/// [`FromHook`](crate::hub::FromHook) names it: a hub without such a state can't be built.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    id: TypeId,
    /// The type's name, for errors.
    pub name: &'static str,
}

impl Needed {
    /// The type `T`.
    #[must_use]
    pub fn of<T: 'static>() -> Self {
        Self {
            id: TypeId::of::<T>(),
            name: type_name::<T>(),
        }
    }
}

/// One value for each type.
#[derive(Default)]
pub(crate) struct States {
    values: HashMap<TypeId, SharedValue>,
}

impl States {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        self.values.insert(TypeId::of::<T>(), value);
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.values.get(&TypeId::of::<T>())?).downcast().ok()
    }

    pub(crate) fn holds(&self, needed: Needed) -> bool {
        self.values.contains_key(&needed.id)
    }
}

/// Bytes among the data of a connection that other nodes get when they go on with it.
#[derive(Clone)]
pub(crate) struct Carried(pub(crate) Bytes);

/// Data that hub code keeps for one connection, one value for each type. It ends with the connection, and is not known
/// to another node that goes on with it: see [`Hub::on_resumed`](crate::Hub::on_resumed).
///
/// ```
/// use hubcast::{Context, Hub, HubError};
///
/// #[derive(Clone)]
/// struct Nickname(String);
///
/// async fn rename(context: Context, name: String) {
///     context.connection().data().insert(Nickname(name));
/// }
///
/// async fn say(context: Context, text: String) -> Result<(), HubError> {
///     let Some(Nickname(name)) = context.connection().data().get() else {
///         return Err(HubError::new("who are you?"));
///     };
///     Ok(context.clients().all().send("Said", (name, text)).await?)
/// }
///
/// let hub = Hub::new("chat").method("Rename", rename).method("Say", say);
/// ```
#[derive(Default)]
pub struct ConnectionData {
    values: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

impl ConnectionData {
    /// Keeps a value, in place of an earlier one of its type, which is returned.
    pub fn insert<T: Send + 'static>(&self, value: T) -> Option<T> {
        let earlier = self.values.lock().insert(TypeId::of::<T>(), Box::new(value));
        earlier
            .and_then(|earlier| earlier.downcast().ok())
            .map(|earlier| *earlier)
    }

    /// A copy of the value of a type.
    #[must_use]
    pub fn get<T: Clone + Send + 'static>(&self) -> Option<T> {
        self.values
            .lock()
            .get(&TypeId::of::<T>())?
            .downcast_ref()
            .cloned()
    }

    /// Works on the value of a type in place; one is made first if there is none. Other calls wait meanwhile.
    pub fn with<T: Default + Send + 'static, R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let mut values = self.values.lock();
        let value = values
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::new(T::default()));
        match value.downcast_mut() {
            Some(value) => work(value),
            None => work(&mut T::default()), // each type has its own key
        }
    }

    /// Takes the value of a type out.
    pub fn remove<T: Send + 'static>(&self) -> Option<T> {
        self.values
            .lock()
            .remove(&TypeId::of::<T>())?
            .downcast()
            .ok()
            .map(|value| *value)
    }
}

impl fmt::Debug for ConnectionData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionData")
            .field("values", &self.values.lock().len())
            .finish()
    }
}
