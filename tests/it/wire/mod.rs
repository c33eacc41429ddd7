//! Status codes, headers and bodies, byte by byte, as the official clients know them.

mod carriage;
mod chunks;
mod cors;
mod credentials;
mod end;
mod events;
mod negotiate;
mod polls;
mod tokens;
mod transports;
mod values;

/// The body that says that an id is not known (any more).
const UNKNOWN: (u16, &str) = (404, "No Connection with that ID");
