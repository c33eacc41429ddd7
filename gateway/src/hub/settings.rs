//! The settings that a hub may have of its own.

use crate::options::{HubDefaults, Limits, Timeouts};

/// Changes settings of one hub.
pub(super) type SettingsChange = Box<dyn Fn(&mut HubSettings) + Send + Sync>;

/// The settings that one hub may have of its own, as [`Hub::configure`](crate::Hub::configure) changes them. They begin as the gateway's.
///
/// ```
/// use std::time::Duration;
/// use hubcast::hub::HubSettings;
/// use hubcast::{Gateway, Hub, Options};
///
/// fn for_sensors(settings: &mut HubSettings) {
///     settings.limits.message_bytes = 1024;
///     settings.limits.outbox_bytes /= 8;
///     settings.timeouts.client_timeout = Duration::from_secs(120);
///     settings.hubs.stream_buffer = 100;
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gateway = Gateway::builder()
///     .hub(Hub::new("sensors").configure(for_sensors))
///     .hub(Hub::new("dashboards"))
///     .options(Options::default())
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Bounds on sizes, counts and rates. Those of the whole node can't be changed here: see [`Limits`].
    pub limits: Limits,
    /// Bounds on time.
    pub timeouts: Timeouts,
    /// How the hub behaves.
    pub hubs: HubDefaults,
}
