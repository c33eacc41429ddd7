//! All scripts, as their texts for one run of a server, and the commands that call them: alone, or as operations of a
//! batch.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult};

use crate::backplane::AWAITED_PER_SECOND;
use crate::redis::script::calls::{connections, events, groups, log, messages, nodes, sessions};
use crate::redis::script::declaration::{BatchScript, Part, Scope, Script};
use crate::redis::script::declared::Declared;
use crate::redis::script::invocation::Invocation;
use crate::redis::server::run::Run;

/// About the bytes of a batch beside its operations, and of an operation beside its keys and arguments.
const BATCH_BYTES: usize = 300;
const HEAD_BYTES: usize = 40;
/// Arguments of an operation beside its own, and of a batch beside its operations.
const OPERATION_HEAD: usize = 4;
const BATCH_HEAD: usize = 12;

/// All scripts.
pub(in crate::redis) const SCRIPTS: [&Script; 49] = [
    // Operations of batches: changes of a hub.
    messages::Publish::SCRIPT,
    messages::PublishDirect::SCRIPT,
    messages::PublishOnce::SCRIPT,
    messages::Count::SCRIPT,
    messages::PublishNumbered::SCRIPT,
    messages::Reply::SCRIPT,
    messages::Finish::SCRIPT,
    messages::Record::SCRIPT,
    messages::StoreCheckpoint::SCRIPT,
    connections::Claim::SCRIPT,
    connections::Enter::SCRIPT,
    connections::Release::SCRIPT,
    connections::Remove::SCRIPT,
    connections::Register::SCRIPT,
    connections::Adopt::SCRIPT,
    groups::Join::SCRIPT,
    groups::Leave::SCRIPT,
    groups::List::SCRIPT,
    groups::Unlist::SCRIPT,
    groups::SetState::SCRIPT,
    groups::UserJoin::SCRIPT,
    sessions::TakeOverConnection::SCRIPT,
    sessions::Seize::SCRIPT,
    sessions::Park::SCRIPT,
    sessions::Restate::SCRIPT,
    events::RestateEvents::SCRIPT,
    log::Sweep::SCRIPT,
    // The end of each batch script.
    log::Batch::SCRIPT,
    // Scripts that are called alone.
    log::Renew::SCRIPT,
    log::ReadExtent::SCRIPT,
    log::Read::SCRIPT,
    log::Newest::SCRIPT,
    log::ReadTails::SCRIPT,
    nodes::Heartbeat::SCRIPT,
    nodes::Reap::SCRIPT,
    nodes::TakeTurns::SCRIPT,
    connections::LookUp::SCRIPT,
    connections::Overdue::SCRIPT,
    connections::CountConnections::SCRIPT,
    groups::UserGroups::SCRIPT,
    groups::ReadPresent::SCRIPT,
    groups::ReadStates::SCRIPT,
    sessions::ListParked::SCRIPT,
    events::ReadEvents::SCRIPT,
    events::FinishEvents::SCRIPT,
    events::NodeOfEvent::SCRIPT,
    events::ClaimEvents::SCRIPT,
    events::CountPending::SCRIPT,
    events::FollowEvents::SCRIPT,
];

impl Part {
    pub(in crate::redis) const fn text(self) -> &'static str {
        match self {
            Self::Log => include_str!("lua/log.lua"),
            Self::Append => include_str!("lua/append.lua"),
            Self::Reading => include_str!("lua/reading.lua"),
            Self::Directory => include_str!("lua/directory.lua"),
            Self::Events => include_str!("lua/events.lua"),
        }
    }
}

impl BatchScript {
    const EACH: [Self; 3] = [Self::Publishing, Self::Messages, Self::All];

    /// The files in front of the operations.
    const fn parts(self) -> &'static [Part] {
        match self {
            Self::Publishing | Self::Messages => &[Part::Log, Part::Append],
            Self::All => &[
                Part::Log,
                Part::Append,
                Part::Reading,
                Part::Directory,
                Part::Events,
            ],
        }
    }

    /// The text: the operations, each a function of `operations`, then what carries them out.
    fn text(self) -> String {
        let mut text = joined(self.parts());
        let mixed = self > Self::Publishing;
        text.push_str(&format!("local MIXED = {mixed}\nlocal operations = {{}}\n"));
        for script in SCRIPTS {
            if matches!(script.scope, Scope::Operation(first) if first <= self) {
                let (name, names, body) = (script.name, script.bind(), script.text);
                text.push_str(&format!(
                    "operations.{name} = function(KEYS, ARGV, key, last_key, argument, last_argument)\n{names}{body}\nend\n"
                ));
            }
        }
        text + &log::Batch::SCRIPT.bind() + log::Batch::SCRIPT.text
    }
}

fn joined(parts: &[Part]) -> String {
    parts.iter().map(|part| part.text()).collect()
}

/// A script's text with its hash.
struct Loaded {
    text: String,
    hash: String,
}

/// The scripts for one run of one server.
pub(in crate::redis) struct Scripts {
    batches: [Loaded; BatchScript::EACH.len()],
    alone: Vec<(&'static str, Loaded)>,
}

impl Scripts {
    pub(in crate::redis) fn for_run(run: &Run, publish: &str) -> Self {
        let Run { id, mark } = run;
        let prelude = format!(
            "local RUN_ID = '{id}'\nlocal MARK = '{mark}'\nlocal PUBLISH = '{publish}'\n\
                 local AWAITED = {AWAITED_PER_SECOND}\nlocal DELIVERY = 'hubcast'\n"
        );
        let loaded = |text: String| {
            let text = format!("{prelude}{text}");
            let hash = redis::Script::new(&text).get_hash().to_owned();
            Loaded { text, hash }
        };
        let alone = SCRIPTS.iter().filter_map(|script| match script.scope {
            Scope::Alone(parts) => {
                let text = joined(parts) + &script.bind() + script.text;
                Some((script.name, loaded(text)))
            }
            Scope::Operation(_) | Scope::Batch => None,
        });
        Self {
            alone: alone.collect(),
            batches: BatchScript::EACH.map(|batch| loaded(batch.text())),
        }
    }

    pub(in crate::redis) async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        let alone = self.alone.iter().map(|(_, loaded)| loaded);
        for Loaded { text, .. } in self.batches.iter().chain(alone) {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(text).ignore();
        }
        pipeline.exec_async(connection).await
    }

    /// The hash of a script that is called alone.
    fn hash(&self, script: &Script) -> &str {
        let found = self.alone.iter().find(|(name, _)| *name == script.name);
        found.map_or("", |(_, loaded)| &loaded.hash)
    }

    fn batch_hash(&self, batch: BatchScript) -> &str {
        let [publishing, messages, all] = &self.batches;
        let loaded = match batch {
            BatchScript::Publishing => publishing,
            BatchScript::Messages => messages,
            BatchScript::All => all,
        };
        &loaded.hash
    }
}

impl Invocation {
    /// The command of a script that is called alone.
    pub(in crate::redis) fn command(&self, scripts: &Scripts) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(scripts.hash(self.script))
            .arg(self.keys.len())
            .arg(&self.keys);
        for argument in &self.arguments {
            command.arg(argument.as_ref());
        }
        command
    }

    /// The smallest batch script that has this operation.
    fn batch_script(&self) -> BatchScript {
        match self.script.scope {
            Scope::Operation(first) => first,
            Scope::Alone(_) | Scope::Batch => BatchScript::All,
        }
    }

    /// The call of a batch, as `batch.lua` takes it: operations with their deadlines in the server's time, in
    /// milliseconds.
    pub(in crate::redis) fn batch<'a>(
        scripts: &Scripts,
        mut head: log::Batch<'_>,
        operations: impl Iterator<Item = (&'a Self, u64)> + Clone,
    ) -> Cmd {
        let needed = operations.clone().map(|(operation, _)| operation.batch_script());
        let script = needed.max().unwrap_or(BatchScript::All);
        let mut own_keys = Vec::with_capacity(1);
        head.put_keys(&mut own_keys);
        let (mut keys, mut arguments, mut bytes) = (own_keys.len(), BATCH_HEAD, BATCH_BYTES);
        for (operation, _) in operations.clone() {
            keys += operation.keys.len();
            arguments += operation.arguments.len() + OPERATION_HEAD;
            bytes += operation.weight() + HEAD_BYTES;
        }
        let mut command = Cmd::with_capacity(keys + arguments, bytes);
        command
            .arg("EVALSHA")
            .arg(scripts.batch_hash(script))
            .arg(keys)
            .arg(&own_keys);
        for (operation, _) in operations.clone() {
            command.arg(&operation.keys);
        }
        head.put_arguments(&mut command);
        for (operation, deadline) in operations {
            command
                .arg(operation.script.name)
                .arg(deadline)
                .arg(operation.keys.len())
                .arg(operation.arguments.len());
            for argument in &operation.arguments {
                command.arg(argument.as_ref());
            }
        }
        command
    }
}
