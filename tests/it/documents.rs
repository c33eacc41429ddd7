//! The examples of the documents, pasted into a shell.
//!
//! A block of commands with `<!-- runs -->` before it is run, and prints the lines of the block `text` behind it, among others. Its
//! ports are replaced by free ones, and packages that it installs are those of the tests.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hubcast_tests::built;
use hubcast_tests::eventually::eventually;
use hubcast_tests::js;
use hubcast_tests::ports::free_port;
use hubcast_tests::process::Process;

const MARK: &str = "<!-- runs -->\n```sh\n";
/// Said behind the last command. The shell and what it has started are ended then.
const END: &str = "the example has ended";

struct Example {
    page: PathBuf,
    commands: String,
    expected: Vec<String>,
}

impl Example {
    /// The commands of a page.
    fn of(page: &Path) -> Vec<Self> {
        let text = fs::read_to_string(page).expect("a page can be read");
        let examples = text.split(MARK).skip(1).map(|rest| {
            let (commands, rest) = rest.split_once("```\n").expect("the block has an end");
            let expected = rest
                .strip_prefix("\n```text\n")
                .and_then(|rest| rest.split_once("```"))
                .unwrap_or_else(|| panic!("{}: an example says what it prints", page.display()));
            Self {
                page: page.to_owned(),
                commands: commands.to_owned(),
                expected: expected.0.lines().map(str::to_owned).collect(),
            }
        });
        examples.collect()
    }

    async fn run(&self) {
        let directory = tempfile::tempdir().expect("a directory");
        let modules = js::folder().join("node_modules");
        std::os::unix::fs::symlink(modules, directory.path().join("node_modules")).expect("a link");
        let mut commands = String::new();
        for line in self
            .commands
            .lines()
            .filter(|line| !line.starts_with("npm install "))
        {
            commands.push_str(line);
            commands.push('\n');
        }
        let [first, second, redis] = [free_port(), free_port(), free_port()];
        for (port, free) in [("8080", first), ("8081", second), ("6400", redis)] {
            commands = commands.replace(port, &free.to_string());
        }
        let _written = write!(commands, "echo '{END}'\nsleep 1000\n");
        let gateway = built::gateway();
        let folder = gateway.parent().expect("the program is in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash");
        for (inherited, _) in std::env::vars().filter(|(name, _)| name.starts_with("HUBCAST_")) {
            shell.env_remove(inherited);
        }
        shell
            .args(["-c", &commands])
            .current_dir(directory.path())
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("HUBCAST_LISTEN", format!("127.0.0.1:{first}"))
            .env("HUBCAST_URL", format!("http://127.0.0.1:{first}"));
        let shell = Process::start("shell", &mut shell, directory.path());
        let what = format!("the example of {} ends", self.page.display());
        eventually(&what, async || shell.output().contains(END).then_some(())).await;
        let output = shell.output();
        for line in &self.expected {
            let page = self.page.display();
            assert!(
                output.contains(line),
                "{page}: {line} is not in {output}\n{}",
                shell.errors()
            );
        }
    }
}

#[tokio::test]
async fn the_examples_of_the_documents_print_what_the_documents_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = fs::read_dir(root.join("docs")).expect("there are documents");
    let mut pages: Vec<_> = pages.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let examples: Vec<_> = pages.iter().flat_map(|page| Example::of(page)).collect();
    assert!(examples.len() >= 8, "{} examples", examples.len());
    for example in examples {
        example.run().await;
    }
}
