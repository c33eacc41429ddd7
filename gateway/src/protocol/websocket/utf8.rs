//! Checks that a text is UTF-8, where it comes in parts that are cut between the bytes of a character.

use std::str::from_utf8;

/// The beginning of a character that was cut off.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Utf8 {
    cut: [u8; 4],
    length: u8,
}

impl Utf8 {
    /// Takes the next bytes of a text. `false` as soon as it can't be UTF-8, whatever follows.
    pub(super) fn take(&mut self, mut bytes: &[u8]) -> bool {
        while self.length > 0 {
            let Some((&byte, rest)) = bytes.split_first() else {
                return true;
            };
            bytes = rest;
            if let Some(place) = self.cut.get_mut(usize::from(self.length)) {
                *place = byte;
                self.length = self.length.saturating_add(1);
            }
            match from_utf8(self.cut.get(..usize::from(self.length)).unwrap_or_default()) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                for byte in bytes.iter().skip(error.valid_up_to()) {
                    if let Some(place) = self.cut.get_mut(usize::from(self.length)) {
                        *place = *byte;
                        self.length = self.length.saturating_add(1);
                    }
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Returns whether the text ends with a whole character.
    pub(super) fn is_whole(self) -> bool {
        self.length == 0
    }
}
