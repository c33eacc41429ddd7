//! The examples in the help are commands that work: each is read as a shell and this program would.

use clap::{CommandFactory, Parser};

use super::{Cli, EXAMPLES, check, connections, events, groups, health, rebalance, send, serve, token};

/// Splits a command as a shell does, up to where another command or an explanation begins.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quote, mut blanks) = (None, 0);
    for character in line.chars() {
        blanks = if character == ' ' && quote.is_none() {
            blanks + 1
        } else {
            0
        };
        if blanks > 1 {
            break;
        }
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '>' | '|' | '&' | ')') => break,
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// The commands of a help's end.
fn commands(help: &str) -> Vec<Vec<String>> {
    let (_, examples) = help.split_once("Examples:\n").expect("a help has examples");
    let lines = examples.lines().take_while(|line| line.starts_with("  "));
    let begin = |line: &str| {
        let inner = line.find("$(hubcast ").map(|at| at + 2);
        inner
            .or_else(|| line.starts_with("  hubcast ").then_some(2))
            .or_else(|| {
                let variable = line.trim_start().starts_with("HUBCAST_");
                line.find(" hubcast ").filter(|_| variable).map(|at| at + 1)
            })
    };
    lines
        .filter_map(|line| begin(line).map(|at| words(&line[at..])))
        .collect()
}

#[test]
fn every_example_is_a_command() {
    for (name, help, least) in [
        ("", EXAMPLES, 6),
        ("serve", serve::EXAMPLES, 4),
        ("check", check::EXAMPLES, 7),
        ("token", token::EXAMPLES, 5),
        ("health", health::EXAMPLES, 3),
        ("send", send::EXAMPLES, 4),
        ("connections", connections::EXAMPLES, 5),
        ("events", events::EXAMPLES, 3),
        ("groups", groups::EXAMPLES, 7),
        ("rebalance", rebalance::EXAMPLES, 2),
    ] {
        let commands = commands(help);
        assert_eq!(commands.len(), least, "{name}: {commands:?}");
        for command in commands {
            if let Err(error) = Cli::try_parse_from(&command) {
                panic!("{command:?}: {error}");
            }
            assert!(name.is_empty() || command[1] == name, "{command:?}");
        }
    }
}

/// One connection id in 64 begins with a hyphen.
#[test]
fn an_id_may_begin_with_a_hyphen() {
    for command in [
        "connections --hub h --connection -F1",
        "connections --hub h --close -F1",
        "connections --hub h --group g --after -F1",
        "groups --hub h --group g --add --connection -F1",
        "groups --hub h --group g --after -F1",
        "send --hub h --connection -F1 Said",
        "send --hub h --except -F1 --except -F2 Said",
    ] {
        let words = std::iter::once("hubcast").chain(command.split(' '));
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{command}: {error}");
        }
    }
}

#[test]
fn every_command_has_examples() {
    for command in Cli::command().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        if matches!(name.as_str(), "serve" | "check") {
            continue; // theirs are added when the program starts
        }
        let help = command.render_long_help().to_string();
        assert!(commands(&help).iter().any(|words| words[1] == name), "{name}");
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    for line in [
        "hubcast send --hub chat",
        "hubcast send Say",
        "hubcast send --hub chat Say text",
        "hubcast send --hub chat Say '[1' ",
        "hubcast send --hub chat Say 1 --group a --user b",
        "hubcast send --hub chat Say 1 --idempotency-key 'a b'",
        "hubcast send --hub chat Say 1 --url http://a --connection-string b",
        "hubcast connections --hub chat --reason text",
        "hubcast connections --hub chat --limit 5",
        "hubcast connections --hub chat --group a --limit 0",
        "hubcast connections --hub chat --group a --close b",
        "hubcast connections --hub chat --user a --after b",
        "hubcast connections --hub chat --user a --close b",
        "hubcast connections --hub chat --user a --reason text",
        "hubcast groups --hub chat --all-groups --remove --user b --ttl 1h",
        "hubcast groups --hub chat --all-groups --remove",
        "hubcast groups --hub chat --user a",
        "hubcast groups --hub chat --add --user a",
        "hubcast groups --hub chat --add --group a",
        "hubcast groups --hub chat --group a --connection b",
        "hubcast groups --hub chat --group a --add --remove --user b",
        "hubcast groups --hub chat --group a --all-groups --remove --user b",
        "hubcast groups --hub chat --all-groups --add --user b",
        "hubcast groups --hub chat --group a --remove --user b --ttl 1h",
        "hubcast groups --hub chat --group a --add --connection b --ttl 1h",
        "hubcast groups --hub chat --group a --count --user b",
        "hubcast groups --hub chat --all-groups",
    ] {
        let error = Cli::try_parse_from(words(line)).err();
        assert!(error.is_some_and(|error| error.use_stderr()), "{line}");
    }
    let minus = "hubcast send --hub chat Say -5 1.5 null";
    assert!(Cli::try_parse_from(words(minus)).is_ok());
}
