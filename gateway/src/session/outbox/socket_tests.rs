use futures_util::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::super::state::Hold;
use super::super::{PushError, Taken};
use super::*;
use crate::session::Appended;

async fn pair() -> (TcpStream, Arc<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let server = accepted.unwrap().0;
    server.writable().await.unwrap();
    (client.unwrap(), Arc::new(server))
}

async fn read(client: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    client.read_exact(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

fn nothing_came(client: &TcpStream) -> bool {
    let read = client.try_read(&mut [0; 1]);
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Writes the rest as the connection's task does.
async fn finish(queue: &ByteQueue, server: &TcpStream) -> Writing {
    loop {
        match queue.writing() {
            Writing::Stuck => {
                server.writable().await.unwrap();
                queue.go_on_writing();
            }
            other => return other,
        }
    }
}

#[tokio::test]
async fn who_pushes_writes_and_wakes_nobody() {
    let (mut client, server) = pair().await;
    let queue = ByteQueue::new(100);
    queue.try_push(Bytes::from_static(b"before")).unwrap();
    queue.attach(server);
    queue.changed().now_or_never(); // of the time before
    assert_eq!(read(&mut client, 6).await, "before");
    queue.try_push(Bytes::from_static(b"one")).unwrap();
    queue.push(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(read(&mut client, 6).await, "onetwo");
    assert_eq!((queue.queued_bytes(), queue.writing()), (0, Writing::Idle));
    assert!(queue.changed().now_or_never().is_none());
    let (sent, rest) = queue.detach();
    assert_eq!((sent.chunks, sent.bytes, rest.len()), (3, 12, 0));
}

#[tokio::test]
async fn appended_chunks_are_written_together_by_one_flush() {
    let (mut client, server) = pair().await;
    let queue = ByteQueue::new(10_000);
    queue.attach(server);
    let chunk = || Bytes::from_static(b"12345");
    assert_eq!(queue.append(chunk(), None), Ok(Appended::Unwritten));
    for _ in 1..200 {
        assert_eq!(queue.append(chunk(), None), Ok(Appended::Offered));
    }
    assert!(nothing_came(&client));
    assert_eq!(
        queue.flush(),
        Sent {
            chunks: 200,
            bytes: 1_000
        }
    );
    assert_eq!(read(&mut client, 1_000).await, "12345".repeat(200));
    assert_eq!(queue.append(chunk(), None), Ok(Appended::Unwritten));
}

#[tokio::test]
async fn what_is_pushed_in_a_turn_is_written_at_its_end() {
    let (mut client, server) = pair().await;
    let queue = ByteQueue::new(100);
    queue.attach(server);
    queue.begin_turn();
    queue.try_push(Bytes::from_static(b"one")).unwrap();
    assert_eq!(
        queue.append(Bytes::from_static(b"two"), None),
        Ok(Appended::Unwritten)
    );
    assert_eq!(queue.flush(), Sent::default());
    assert!(nothing_came(&client));
    assert_eq!(queue.end_turn(), Sent { chunks: 2, bytes: 6 });
    assert_eq!(read(&mut client, 6).await, "onetwo");
}

#[tokio::test]
async fn what_the_kernel_does_not_take_is_written_in_order_by_the_task() {
    let (mut client, server) = pair().await;
    let queue = ByteQueue::new(64 * 1024 * 1024);
    queue.attach(Arc::clone(&server));
    let chunk = |n: usize| Bytes::from(format!("{n:08}{}", "x".repeat(99_992)));
    let mut count = 0;
    while queue.writing() == Writing::Idle {
        queue.try_push(chunk(count)).unwrap();
        count += 1;
    }
    queue.changed().now_or_never().expect("the task is woken");
    for _ in 0..10 {
        queue.try_push(chunk(count)).unwrap();
        count += 1;
    }
    queue.add_pong(b"pong").unwrap();
    assert!(queue.pongs_are_out().now_or_never().is_none());
    let waiting = queue.queued_bytes();
    assert!((1_000_000..1_200_000).contains(&waiting), "{waiting}");
    queue.close_with(Bytes::from_static(b"end"));
    let reading = async {
        let mut bytes = vec![0; count * 100_000 + 7];
        client.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    let (over, bytes) = tokio::join!(finish(&queue, &server), reading);
    assert_eq!(over, Writing::Over);
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.ends_with("end"));
    let before_pong = text.find("pong").unwrap();
    assert!(
        before_pong < text.len() - 900_000 && before_pong.is_multiple_of(100_000),
        "{before_pong}"
    );
    let text = text.replacen("pong", "", 1);
    for n in 0..count {
        assert_eq!(text[n * 100_000..][..8], format!("{n:08}"));
    }
}

#[tokio::test]
async fn a_chunk_on_its_way_comes_again_whole_on_the_next_socket() {
    let (_client, server) = pair().await;
    let queue = ByteQueue::new(64 * 1024 * 1024);
    queue.keep();
    queue.attach(Arc::clone(&server));
    let chunk = Bytes::from(vec![b'x'; 10_000_000]);
    queue.append(chunk.clone(), Some(1)).unwrap();
    queue.append(Bytes::from_static(b"next"), Some(2)).unwrap();
    queue.flush();
    assert_eq!(queue.writing(), Writing::Stuck);
    let (_, rest) = queue.detach();
    assert!(!rest.is_empty() && rest.len() < chunk.len());
    queue
        .rewind(|first| Some(format!("from {first}").into()))
        .unwrap();
    let mut batch = Vec::new();
    assert_eq!(queue.take(&mut batch, usize::MAX).await, Taken::Some);
    assert_eq!(
        batch,
        [Bytes::from_static(b"from 1"), chunk, Bytes::from_static(b"next")]
    );
}

#[tokio::test]
async fn a_held_queue_writes_its_first_chunk_alone() {
    let (mut client, server) = pair().await;
    let queue = ByteQueue::new(1_000);
    queue.state.lock().hold = Hold::Everything;
    queue.attach(Arc::clone(&server));
    queue.try_push(Bytes::from_static(b"later")).unwrap();
    queue.add_pong(b"pong").unwrap();
    queue.open_one(Bytes::from_static(b"first"));
    assert_eq!(read(&mut client, 9).await, "pongfirst");
    queue.flush();
    assert!(nothing_came(&client));
    queue.release();
    assert_eq!(read(&mut client, 5).await, "later");
}

#[tokio::test]
async fn a_broken_socket_is_noticed_by_who_pushes_and_told_to_the_task() {
    let (client, server) = pair().await;
    let queue = ByteQueue::new(usize::MAX);
    queue.attach(server);
    drop(client);
    let mut pushes = 0;
    while queue.writing() != Writing::Broken {
        queue.try_push(Bytes::from_static(b"x")).unwrap();
        tokio::task::yield_now().await;
        pushes += 1;
        assert!(pushes < 1_000_000);
    }
    queue.changed().now_or_never().expect("the task is woken");
    queue.discard();
    assert_eq!(queue.writing(), Writing::Over);
}

#[tokio::test]
async fn a_queue_that_is_cut_off_ends_with_the_chunk_on_its_way() {
    let (mut client, server) = pair().await;
    let queue = ByteQueue::new(usize::MAX);
    queue.attach(Arc::clone(&server));
    queue.try_push(Bytes::from(vec![b'x'; 10_000_000])).unwrap();
    queue.try_push(Bytes::from_static(b"later")).unwrap();
    assert_eq!(queue.writing(), Writing::Stuck);
    queue.cut_off();
    assert_eq!(
        queue.try_push(Bytes::from_static(b"more")),
        Err(PushError::Closed)
    );
    let reading = async {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let writing = async {
        assert_eq!(finish(&queue, &server).await, Writing::Over);
        queue.detach();
        drop(server);
    };
    let (bytes, ()) = tokio::join!(reading, writing);
    assert_eq!(bytes.len(), 10_000_000);
}
