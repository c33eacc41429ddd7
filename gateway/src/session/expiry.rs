//! Connections end with the tokens that they were opened with, where that is wanted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use crate::auth::Identity;
use crate::options::AuthOptions;

use super::{CloseReason, Session};

/// Wall clocks are set now and then, so they are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Closes a session when its token ends, unless a newer one is shown. Does nothing where nothing is to be closed, or it
/// is watched already.
pub(crate) fn watch_expiry(session: &Arc<Session>) {
    let shared = session.hub().shared();
    let auth = &shared.options().auth;
    let by_setting = auth.close_on_expiry;
    // A token that was shown when it had ended already, within the leeway, is good for as long as it would be shown.
    let leeway = auth.leeway.0;
    let first = end_of(session, by_setting);
    let Some(first) = first else { return };
    if session.watched.swap(true, Ordering::AcqRel) {
        if first + leeway <= SystemTime::now() {
            session.close(CloseReason::Expired); // before it is looked at again
        }
        return;
    }
    let late = if first <= SystemTime::now() {
        leeway
    } else {
        Duration::ZERO
    };
    let session = Arc::clone(session);
    shared.tasks().spawn(async move {
        while let Some(end) = end_of(&session, by_setting) {
            let Ok(left) = (end + late).duration_since(SystemTime::now()) else {
                session.close(CloseReason::Expired);
                return;
            };
            tokio::select! {
                () = session.closing().cancelled() => return,
                () = sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    });
}

/// Returns whether a connection with that identity would be closed at once: it is not to be opened.
pub(crate) fn is_over(identity: &Identity, auth: &AuthOptions) -> bool {
    let end = end_of_identity(identity, auth.close_on_expiry);
    end.is_some_and(|end| end + auth.leeway.0 <= SystemTime::now())
}

/// The time when the session is to be closed, as of now.
fn end_of(session: &Session, by_setting: bool) -> Option<SystemTime> {
    end_of_identity(&session.connection().identity(), by_setting)
}

fn end_of_identity(identity: &Identity, by_setting: bool) -> Option<SystemTime> {
    let by_setting = identity.expires().filter(|_| by_setting);
    [by_setting, identity.close_at()].into_iter().flatten().min()
}
