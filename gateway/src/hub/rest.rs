//! Arguments that are passed on as they were encoded: one, or as many as a client sends.

use super::{Arguments, BindError, Call, FromInvocation, marker};
use crate::protocol::{EncodeValueError, Value};

/// An argument that hub code does not look into.
impl FromInvocation<marker::Raw> for Value {
    const ARGUMENTS: usize = 1;

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        call.next_argument()
    }
}

/// All arguments that are left, as they were encoded: the last parameter of a method that takes any number of them. It can
/// be sent on as it is.
///
/// ```
/// use hubcast::hub::Rest;
/// use hubcast::testing::HubTester;
/// use hubcast::{Context, Hub, HubError};
///
/// async fn shout(context: Context, target: String, arguments: Rest) -> Result<usize, HubError> {
///     let count = arguments.0.len();
///     context.clients().all().send(&target, arguments).await?;
///     Ok(count)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tester = HubTester::new(Hub::new("hall").method("Shout", shout)).await?;
/// let mut client = tester.connect().await;
/// assert_eq!(client.invoke::<usize>("Shout", ("Hear", "hear", 7)).await?, 2);
/// let heard = client.expect("Hear").await?;
/// assert_eq!(heard.argument::<u8>(1), Some(7));
/// assert_eq!(client.invoke::<usize>("Shout", ("Silence",)).await?, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Rest(pub Vec<Value>);

impl FromInvocation<marker::Raw> for Rest {
    const ARGUMENTS: usize = 0;
    const REST: bool = true;

    fn from_invocation(call: &mut Call) -> Result<Self, BindError> {
        let mut rest = Vec::new();
        while let Ok(argument) = call.next_argument() {
            rest.push(argument);
        }
        Ok(Self(rest))
    }
}

impl Arguments for Rest {
    fn into_values(self) -> Result<Vec<Value>, EncodeValueError> {
        Ok(self.0)
    }
}
