//! The Redis protocol, as far as a proxy needs it: where a frame ends, and the words of a command.

use bytes::Bytes;

/// Finds the ends of frames in bytes that come little by little. Knows RESP2 and RESP3.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// How much of the frame is known to be whole.
    at: usize,
    /// How many elements each open aggregate still lacks.
    open: Vec<u64>,
}

impl Scanner {
    /// The length of the frame that `buffer` begins with; `None` while some of it lacks. The buffer must grow only, until
    /// the frame is taken off it.
    pub(super) fn scan(&mut self, buffer: &[u8]) -> Option<usize> {
        loop {
            let rest = buffer.get(self.at..)?;
            let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
            let head = &rest[..line];
            let number = || parse(head.get(1..).unwrap_or_default());
            let end = self.at + line + 2;
            let elements = match head.first() {
                Some(b'$' | b'=' | b'!') => {
                    let payload = number().map_or(0, |length| length + 2);
                    if buffer.len() < end + payload {
                        return None;
                    }
                    self.at = end + payload;
                    0
                }
                Some(b'*' | b'~' | b'>') => {
                    self.at = end;
                    number().unwrap_or(0)
                }
                Some(b'%') => {
                    self.at = end;
                    2 * number().unwrap_or(0)
                }
                // A line that is all of its element, or a command as people type it.
                _ => {
                    self.at = end;
                    0
                }
            };
            if elements > 0 {
                self.open.push(elements as u64);
            } else if self.closes() {
                return Some(std::mem::take(&mut self.at));
            }
        }
    }

    /// An element is whole. Says whether the frame is.
    fn closes(&mut self) -> bool {
        while let Some(lacking) = self.open.last_mut() {
            *lacking -= 1;
            if *lacking > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// A length; nothing for the one that stands for null.
fn parse(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A command as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    words: Vec<Bytes>,
}

impl Command {
    /// Reads a whole frame.
    pub(super) fn read(frame: &Bytes) -> Self {
        let mut words = Vec::new();
        let mut at = 0;
        while let Some(length) = frame[at..].windows(2).position(|pair| pair == b"\r\n") {
            let line = frame.slice(at..at + length);
            at += length + 2;
            match line.first() {
                Some(b'$') => {
                    let end = at + parse(&line[1..]).unwrap_or(0);
                    words.push(frame.slice(at..end));
                    at = end + 2;
                }
                Some(b'*') => {}
                _ => words.extend(line.split(|byte| *byte == b' ').map(|word| line.slice_ref(word))),
            }
        }
        Self { words }
    }

    /// Returns whether it is this command, whatever its case.
    pub fn is(&self, name: &str) -> bool {
        self.words
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Name and arguments.
    pub fn words(&self) -> &[Bytes] {
        &self.words
    }

    /// Returns whether it runs a script.
    pub fn is_script(&self) -> bool {
        ["EVALSHA", "EVAL", "FCALL"].iter().any(|name| self.is(name))
    }

    /// Returns whether it begins or ends a subscription.
    pub fn is_subscription(&self) -> bool {
        let name = self.words.first().map(|word| word.to_ascii_uppercase());
        name.is_some_and(|name| name.ends_with(b"SUBSCRIBE"))
    }

    /// The keys that a script is given.
    pub fn keys(&self) -> &[Bytes] {
        let count = self.words.get(2).and_then(|word| parse(word)).unwrap_or(0);
        match self.words.get(3..) {
            Some(rest) if self.is_script() => &rest[..count.min(rest.len())],
            _ => &[],
        }
    }

    /// Returns whether one of a script's keys contains `text`, such as `:connection:`.
    pub fn has_key(&self, text: &str) -> bool {
        self.keys().iter().any(|key| contains(key, text))
    }

    /// Returns whether one of its arguments contains `text`.
    pub fn mentions(&self, text: &str) -> bool {
        self.words.iter().skip(1).any(|word| contains(word, text))
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts off frames, with the bytes coming one by one.
    fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut scanner, mut buffer, mut frames) = (Scanner::default(), Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(*byte);
            if let Some(length) = scanner.scan(&buffer) {
                frames.push(buffer.drain(..length).collect());
            }
        }
        assert!(buffer.is_empty(), "everything belongs to a frame");
        frames
    }

    fn command(frame: &'static [u8]) -> Command {
        Command::read(&Bytes::from_static(frame))
    }

    #[test]
    fn frames_end_where_they_end_however_they_come() {
        let all: [&[u8]; 12] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":-7\r\n",
            b"$5\r\na\r\nbc\r\n",
            b"$-1\r\n",
            b"_\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n*2\r\n$1\r\na\r\n*0\r\n:1\r\n",
            b"%1\r\n+k\r\n*1\r\n#t\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\r\n\r\n",
            b"~1\r\n,1.5\r\n",
        ];
        assert_eq!(frames(&all.concat()), all);
    }

    #[test]
    fn frames_that_come_at_once_are_cut_off_one_by_one() {
        let mut scanner = Scanner::default();
        let bytes = b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPIN";
        assert_eq!(scanner.scan(bytes), Some(14));
        assert_eq!(scanner.scan(&bytes[14..]), None);
        assert_eq!(scanner.scan(b"*1\r\n$4\r\nPING\r\n"), Some(14));
    }

    #[test]
    fn a_command_is_known_by_its_words() {
        let evalsha = command(b"*6\r\n$7\r\nevalsha\r\n$2\r\nab\r\n$1\r\n2\r\n$3\r\nlog\r\n$14\r\nh:connection:1\r\n$4\r\n\r\nxy\r\n");
        assert!(evalsha.is("EVALSHA") && evalsha.is_script());
        assert_eq!(
            evalsha.keys(),
            [Bytes::from_static(b"log"), Bytes::from_static(b"h:connection:1")]
        );
        assert!(evalsha.has_key(":connection:") && !evalsha.has_key("xy"));
        assert!(evalsha.mentions("xy") && !evalsha.mentions("evalsha"));
        assert!(command(b"*2\r\n$10\r\nSSUBSCRIBE\r\n$1\r\nc\r\n").is_subscription());
        assert!(!command(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").is_subscription());
        assert_eq!(command(b"PING now\r\n").words().len(), 2, "as people type it");
    }

    #[test]
    fn a_script_with_a_wrong_number_of_keys_has_those_that_are_there() {
        let short = command(b"*4\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$2\r\n99\r\n$1\r\nk\r\n");
        assert_eq!(short.keys().len(), 1);
        assert_eq!(
            command(b"*3\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n?\r\n")
                .keys()
                .len(),
            0
        );
    }
}
