//! Taking turns to let connections go.

use std::time::Duration;

use crate::error::BackplaneError;
use crate::redis::inner::Inner;
use crate::redis::script::calls::nodes::TakeTurns;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::commands::Repeat;
use crate::redis::server::replies::{decode, items, malformed};
use crate::turns::{Turns, TurnsWanted};

impl Inner {
    pub(in crate::redis) async fn take_turns(&self, wanted: &TurnsWanted) -> Result<Turns, BackplaneError> {
        let call = Invocation::of(TakeTurns {
            turns: self.keys.turns(),
            node: &self.options.node,
            count: wanted.count.max(1).into(),
            rate: wanted.rate.max(1).into(),
            need: format!("{:.3}", wanted.need),
        });
        // Where the script was carried out twice, the first turns are lost.
        let answer = items(self.commands.script(&call, Repeat::Safe).await?)?;
        let times = answer
            .into_iter()
            .map(decode::<u64>)
            .collect::<Result<Vec<_>, _>>()?;
        match times.as_slice() {
            [wait, apart] => Ok(Turns {
                wait: Duration::from_micros(*wait),
                apart: Duration::from_micros(*apart),
            }),
            _ => Err(malformed("turns of another length")),
        }
    }
}
