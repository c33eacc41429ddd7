//! `hubcast health`: asks a node whether it is ready. For containers, which have no curl.

use std::{io, time::Duration};

use axum::http::Uri;
use clap::Args;
use tokio::net::TcpStream;

use super::{ConfigArgs, Failure, serve::reachable};

/// Flags of `hubcast health`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HealthArgs {
    /// The URL to ask [default: /readyz on the address that the configuration listens on]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) const EXAMPLES: &str = "\
Exits with 0 when the node answers with success within 2 seconds, with 1 when it doesn't.

Examples:
  hubcast health
  hubcast health --listen 127.0.0.1:9000
  hubcast health --url http://10.0.0.7:8080/healthz";

pub(super) fn run(args: HealthArgs) -> Result<(), Failure> {
    let target = match &args.url {
        Some(url) => ProbeUrl::parse(url),
        None => ProbeUrl::of_listener(&args.config.load()?.config.listen),
    };
    let target = target.map_err(|error| Failure::Usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = runtime.block_on(async { tokio::time::timeout(TIMEOUT, target.ask()).await });
    let not_ready =
        |what: String| Failure::Runtime(format!("http://{}{}: {what}", target.authority, target.path));
    match asked {
        Ok(Ok(200..=299)) => Ok(()),
        Ok(Ok(status)) => Err(not_ready(format!("answered with status {status}"))),
        Ok(Err(error)) => Err(not_ready(error.to_string())),
        Err(_) => Err(not_ready(format!("no answer within {TIMEOUT:?}"))),
    }
}

/// The reason why it is not known which URL to ask.
#[derive(Debug, thiserror::Error)]
enum ProbeUrlError {
    #[error("{0:?} is not a URL such as http://127.0.0.1:8080/readyz")]
    NotAUrl(String),
    #[error("listen is {0:?}, any free port: say which one with --url")]
    AnyPort(String),
}

/// The URL that is asked, over plain HTTP.
#[derive(Debug, PartialEq, Eq)]
struct ProbeUrl {
    authority: String,
    path: String,
}

impl ProbeUrl {
    fn parse(url: &str) -> Result<Self, ProbeUrlError> {
        let wrong = || ProbeUrlError::NotAUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let host = uri
            .host()
            .filter(|_| uri.scheme_str() == Some("http"))
            .ok_or_else(wrong)?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { authority, path })
    }

    fn of_listener(listen: &str) -> Result<Self, ProbeUrlError> {
        if listen.ends_with(":0") {
            return Err(ProbeUrlError::AnyPort(listen.to_owned()));
        }
        let authority = listen
            .parse()
            .map_or_else(|_| listen.to_owned(), |addr| reachable(addr).to_string());
        Ok(Self {
            authority,
            path: "/readyz".to_owned(),
        })
    }

    /// The status of the answer.
    async fn ask(&self) -> io::Result<u16> {
        let stream = TcpStream::connect(&self.authority).await?;
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.path, self.authority
        );
        write_all(&stream, request.as_bytes()).await?;
        let mut head = [0; STATUS_LINE.len()];
        read_exact(&stream, &mut head).await?;
        let status = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..));
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_exact(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.readable().await?;
        match stream.try_read(&mut buffer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const TIMEOUT: Duration = Duration::from_secs(2);
/// The part of a response that has to be read.
const STATUS_LINE: &[u8] = b"HTTP/1.1 200";

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener},
        thread,
    };

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Health {
        #[command(flatten)]
        args: HealthArgs,
    }

    /// Answers one request.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    fn ask(flag: &str, value: &str) -> Result<(), Failure> {
        run(Health::parse_from(["health", flag, value]).args)
    }

    #[test]
    fn success_is_a_2xx() {
        let address = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(ask("--listen", &format!("0.0.0.0:{}", address.port())).is_ok());
        let address = server("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let failure = ask("--url", &format!("http://{address}/readyz")).unwrap_err();
        assert_eq!(failure.code(), 1);
        assert!(
            failure.to_string().ends_with("answered with status 503"),
            "{failure}"
        );
        let address = server("hello");
        assert_eq!(ask("--listen", &address.to_string()).unwrap_err().code(), 1);
    }

    #[test]
    fn nobody_there_is_a_failure() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(ask("--listen", &free.to_string()).unwrap_err().code(), 1);
    }

    #[test]
    fn what_can_not_be_asked_is_a_usage_error() {
        for url in [
            "127.0.0.1:8080/readyz",
            "https://127.0.0.1/readyz",
            "http://",
            "what",
        ] {
            assert_eq!(ask("--url", url).unwrap_err().code(), 2, "{url}");
        }
        assert_eq!(ask("--listen", "127.0.0.1:0").unwrap_err().code(), 2);
    }

    #[test]
    fn a_url_may_leave_out_port_and_path() {
        let target = ProbeUrl::parse("http://node").unwrap();
        assert_eq!(
            target,
            ProbeUrl {
                authority: "node:80".to_owned(),
                path: "/".to_owned()
            }
        );
        assert_eq!(
            ProbeUrl::parse("http://[::1]:81/a?b").unwrap().authority,
            "[::1]:81"
        );
    }
}
