//! A collector of traces: takes what gateways export by OTLP over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Listens until it is dropped.
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    task: AbortHandle,
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&spans))).abort_handle();
        Self { address, spans, task }
    }

    /// Its address, as gateways take it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("nobody panics while holding it").clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, spans: Arc<Mutex<Vec<Span>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(BufReader::new(stream), Arc::clone(&spans)));
    }
}

/// Answers one POST after the other; ends with the connection.
async fn serve(mut stream: BufReader<TcpStream>, spans: Arc<Mutex<Vec<Span>>>) -> Option<()> {
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let request = ExportTraceServiceRequest::decode(body.as_slice()).ok()?;
        let scopes = request
            .resource_spans
            .into_iter()
            .flat_map(|resource| resource.scope_spans);
        spans
            .lock()
            .expect("nobody panics while holding it")
            .extend(scopes.flat_map(|scope| scope.spans));
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\n";
        let head = format!("{head}Content-Length: {}\r\n\r\n", answer.len());
        stream
            .write_all(&[head.as_bytes(), &answer].concat())
            .await
            .ok()?;
    }
}
