//! The listener's loop: bounds what a connection may cost before it has said anything, and ends them all on request.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take for the headers of a request. The time between two requests counts too, so it is longer
/// than load balancers keep idle connections (mostly 60 s): they must be the ones to close them.
const HEADER_PATIENCE: Duration = Duration::from_secs(75);
/// Largest head of a request. A token of 16 KiB must fit.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Serves connections until `stop` ends, then waits for requests that are being answered, but not longer than
/// `deadline`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
    deadline: Duration,
) {
    let server = server();
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            stream = accept(&listener) => stream,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a socket could not be set up");
            continue;
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = server
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "an HTTP connection broke"); // peers do that all the time
            }
        });
    }
    drop(listener);
    connections.close();
    let _ = timeout(deadline, async {
        graceful.shutdown().await;
        connections.wait().await;
    })
    .await;
}

fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(MAX_HEAD_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30));
    server
}

/// Accepts, however long it takes: running out of file descriptors must not end the server.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
