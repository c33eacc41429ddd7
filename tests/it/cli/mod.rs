//! The commands that talk to a running gateway, as scripts and people run them.

mod commands;
mod refusals;
mod scripts;

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use hubcast_tests::built;
use hubcast_tests::eventually::within;
use hubcast_tests::jwt::ACCESS_KEY;
use serde_json::Value;
use tokio::process::Command;

/// The outcome of a command.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints text");
        let done = Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        };
        for said in [&done.out, &done.err] {
            assert!(!said.contains(ACCESS_KEY), "the key is printed: {said}");
            assert!(!said.contains("eyJ"), "a token is printed: {said}");
        }
        done
    }

    /// Its output, when all went well.
    fn ok(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out.trim_end()
    }

    fn json(&self) -> Value {
        let out = self.ok();
        assert_eq!(out.lines().count(), 1, "{out}");
        serde_json::from_str(out).expect("it prints JSON")
    }

    /// Its error, when it was refused or the command line was wrong.
    fn fails(&self, code: i32) -> &str {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        &self.err
    }
}

/// Runs the program with these variables and no other ones of its own.
async fn output(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::from(built::gateway_command());
    command.args(args).envs(variables.iter().copied());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = within(&format!("hubcast {args:?} ends"), command.output()).await;
    output.expect("hubcast can be started")
}

async fn hubcast(args: &[&str], variables: &[(&str, &str)]) -> Done {
    Done::of(&output(args, variables).await)
}

/// Runs a command against the demo hub of a node, with the key of the environment.
async fn on(address: SocketAddr, args: &[&str]) -> Done {
    let url = format!("http://{address}");
    let variables = [("HUBCAST_URL", url.as_str()), ("HUBCAST_ACCESS_KEY", ACCESS_KEY)];
    hubcast(&[args, &["--hub", "demo"]].concat(), &variables).await
}

/// One of each command that talks to a gateway.
const COMMANDS: [&[&str]; 5] = [
    &["send", "Say", "1"],
    &["connections"],
    &["groups"],
    &["events"],
    &["rebalance"],
];
