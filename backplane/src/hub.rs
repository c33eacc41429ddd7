//! The interface between a gateway node and one hub of the backplane.

use crate::connections::Connections;
use crate::directory::Directory;
use crate::events::Events;
use crate::group_states::GroupStates;
use crate::history::History;
use crate::log::Log;
use crate::sessions::Sessions;
use crate::topic::HubName;

/// A hub that this node serves, as [`Backplane::open_hub`](crate::Backplane::open_hub) returns it: its log, its
/// connections, their directory, the records of resumable ones, its connection events, and the states of its groups.
///
/// Calls wait for a bounded time when the server can't be reached and then fail with
/// [`BackplaneError::Unavailable`](crate::BackplaneError::Unavailable). A dropped call may still be carried out. The hub is
/// of use for as long as its backplane, which the caller keeps.
pub trait HubBackplane:
    Log + History + Connections + Sessions + Directory + Events + GroupStates + 'static
{
    /// The hub's name.
    fn name(&self) -> &HubName;
}
