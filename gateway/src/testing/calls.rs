//! Requests of test clients to a hub: calls, streams and uploads.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::TestClient;
use super::error::TestError;
use super::wire::Begun;
use crate::hub::Arguments;
use crate::protocol::{HubMessage, Invocation, Outcome, Value};

/// An invocation or a stream that a test client has begun: see [`TestClient::begin`] and [`TestClient::begin_stream`].
#[derive(Debug)]
pub struct TestCall {
    id: String,
}

/// A stream of items from a test client to a method.
///
/// ```
/// use futures_util::stream::{Stream, StreamExt};
/// use hubcast::hub::{Upload, UploadError};
/// use hubcast::testing::HubTester;
/// use hubcast::Hub;
///
/// async fn double(numbers: Upload<i32>) -> impl Stream<Item = Result<i32, UploadError>> {
///     numbers.map(|number| Ok(number? * 2))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("math").stream("Double", double)).await?;
/// let mut client = tester.connect().await;
/// let numbers = client.open_upload();
/// let doubled = client.begin_stream("Double", (), &[&numbers]).await?;
/// client.push(&numbers, 21).await?;
/// assert_eq!(client.item::<i32>(&doubled).await, Ok(Some(42)));
/// client.finish(numbers, Ok(())).await?;
/// assert_eq!(client.item::<i32>(&doubled).await, Ok(None));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestUpload {
    id: String,
}

impl TestClient {
    /// Invokes a method and waits for its result.
    ///
    /// # Errors
    /// [`TestError::Completion`] with the text that the client gets, or the reason why there is no completion: the
    /// connection ended, or the time is over.
    pub async fn invoke<R: DeserializeOwned>(
        &mut self,
        target: &str,
        arguments: impl Arguments,
    ) -> Result<R, TestError> {
        let call = self.begin(target, arguments, &[]).await?;
        self.result(&call).await
    }

    /// Invokes a method without a completion.
    ///
    /// # Errors
    /// Arguments that can't be encoded, or the end of the connection.
    pub async fn send(&mut self, target: &str, arguments: impl Arguments) -> Result<(), TestError> {
        let invocation = self.invocation(target, arguments, None, &[])?;
        self.wire.write_message(&HubMessage::Invocation(invocation)).await
    }

    /// Invokes a streaming method and gathers its items until it ends.
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke); the items before an error are lost.
    pub async fn stream<T: DeserializeOwned>(
        &mut self,
        target: &str,
        arguments: impl Arguments,
    ) -> Result<Vec<T>, TestError> {
        let call = self.begin_stream(target, arguments, &[]).await?;
        let mut items = Vec::new();
        while let Some(item) = self.item(&call).await? {
            items.push(item);
        }
        Ok(items)
    }

    /// Invokes a method with one upload, streams the items to it, and waits for its result.
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke).
    pub async fn upload<T: Serialize, R: DeserializeOwned>(
        &mut self,
        target: &str,
        arguments: impl Arguments,
        items: impl IntoIterator<Item = T>,
    ) -> Result<R, TestError> {
        let upload = self.open_upload();
        let call = self.begin(target, arguments, &[&upload]).await?;
        for item in items {
            self.push(&upload, item).await?;
        }
        self.finish(upload, Ok(())).await?;
        self.result(&call).await
    }

    /// Invokes a method without waiting, with these uploads. See [`result`](Self::result) and [`cancel`](Self::cancel).
    ///
    /// # Errors
    /// Arguments that can't be encoded, or the end of the connection.
    pub async fn begin(
        &mut self,
        target: &str,
        arguments: impl Arguments,
        uploads: &[&TestUpload],
    ) -> Result<TestCall, TestError> {
        let id = self.next_id();
        let invocation = self.invocation(target, arguments, Some(&id), uploads)?;
        self.begun(id, &HubMessage::Invocation(invocation)).await
    }

    /// Invokes a streaming method without waiting, with these uploads. See [`item`](Self::item) and
    /// [`cancel`](Self::cancel).
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub async fn begin_stream(
        &mut self,
        target: &str,
        arguments: impl Arguments,
        uploads: &[&TestUpload],
    ) -> Result<TestCall, TestError> {
        let id = self.next_id();
        let invocation = self.invocation(target, arguments, Some(&id), uploads)?;
        self.begun(id, &HubMessage::StreamInvocation(invocation)).await
    }

    /// Waits for the result of a call; of a stream, for its end, which has the result null.
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke).
    pub async fn result<R: DeserializeOwned>(&mut self, call: &TestCall) -> Result<R, TestError> {
        let value = self.result_value(call).await?;
        Ok(value.decode()?)
    }

    /// Like [`result`](Self::result), but as the server encoded it.
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke).
    pub async fn result_value(&mut self, call: &TestCall) -> Result<Value, TestError> {
        let until = self.wire.until();
        loop {
            let begun = self.wire.calls.get(&call.id);
            match begun.and_then(|begun| begun.end.clone()) {
                Some(Outcome::Result(value)) => return Ok(value),
                Some(Outcome::Void) => return Ok(Value::null(self.wire.protocol.encoding())),
                Some(Outcome::Error(text)) => return Err(TestError::Completion(text)),
                None => self.wire.exchange(until).await?,
            }
        }
    }

    /// Waits for the next item of a stream; `None` is its end.
    ///
    /// # Errors
    /// As for [`invoke`](Self::invoke), and an item of another type.
    pub async fn item<T: DeserializeOwned>(&mut self, call: &TestCall) -> Result<Option<T>, TestError> {
        let until = self.wire.until();
        loop {
            if let Some(begun) = self.wire.calls.get_mut(&call.id) {
                if let Some(item) = begun.items.pop_front() {
                    return Ok(Some(item.decode()?));
                }
                match &begun.end {
                    Some(Outcome::Error(text)) => return Err(TestError::Completion(text.clone())),
                    Some(_) => return Ok(None),
                    None => {}
                }
            }
            self.wire.exchange(until).await?;
        }
    }

    /// Cancels this call.
    ///
    /// # Errors
    /// The end of the connection.
    pub async fn cancel(&mut self, call: &TestCall) -> Result<(), TestError> {
        self.wire
            .write_message(&HubMessage::CancelInvocation {
                headers: Vec::new(),
                invocation_id: call.id.clone(),
            })
            .await
    }

    /// An upload, to be given to [`begin`](Self::begin) or [`begin_stream`](Self::begin_stream).
    pub fn open_upload(&mut self) -> TestUpload {
        TestUpload { id: self.next_id() }
    }

    /// Streams one item to a method. Waits while the method is slow.
    ///
    /// # Errors
    /// An item that can't be encoded, the end of the connection, or that the time is over.
    pub async fn push<T: Serialize>(&mut self, upload: &TestUpload, item: T) -> Result<(), TestError> {
        let item = Value::encode_as(&item, self.wire.protocol.encoding())?;
        self.wire
            .write_message(&HubMessage::StreamItem {
                headers: Vec::new(),
                invocation_id: upload.id.clone(),
                item,
            })
            .await
    }

    /// Ends an upload, well or with an error, such as the `Stream canceled by client.` of official clients.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub async fn finish(&mut self, upload: TestUpload, end: Result<(), &str>) -> Result<(), TestError> {
        let outcome = match end {
            Ok(()) => Outcome::Void,
            Err(text) => Outcome::Error(text.to_owned()),
        };
        self.wire
            .write_message(&HubMessage::Completion {
                headers: Vec::new(),
                invocation_id: upload.id,
                outcome,
            })
            .await
    }

    fn next_id(&mut self) -> String {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id.to_string()
    }

    fn invocation(
        &self,
        target: &str,
        arguments: impl Arguments,
        id: Option<&str>,
        uploads: &[&TestUpload],
    ) -> Result<Invocation, TestError> {
        Ok(Invocation {
            invocation_id: id.map(str::to_owned),
            target: target.to_owned(),
            arguments: arguments.into_values()?,
            stream_ids: uploads.iter().map(|upload| upload.id.clone()).collect(),
            ..Invocation::default()
        })
    }

    async fn begun(&mut self, id: String, message: &HubMessage) -> Result<TestCall, TestError> {
        self.wire.calls.insert(id.clone(), Begun::default());
        self.wire.write_message(message).await?;
        Ok(TestCall { id })
    }
}
