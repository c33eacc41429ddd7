//! Random secrets.

use std::sync::Arc;

use uuid::Uuid;

/// 32 random bytes.
pub(crate) fn secret() -> Arc<[u8]> {
    let mut bytes = [0; 32];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        // The system's own source, without the generator on top of it.
        let parts = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()];
        bytes.copy_from_slice(parts.as_flattened());
    }
    Arc::from(bytes)
}
