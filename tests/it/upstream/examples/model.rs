//! The example that streams a language model's tokens to its callers.

use super::*;

#[tokio::test]
async fn tokens_of_a_model_in_python_reach_their_caller_in_order_with_an_end() {
    if Command::new("python3").arg("--version").output().is_err() {
        return say("the chat with a model skipped: there is no python3");
    }
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let cluster = plan("llm-python", address).balanced().start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("python3");
    command
        .args(["-B", "-u", "server.py"])
        .current_dir(example("llm-python"))
        .env("PORT", address.port().to_string())
        .env(
            "HUBCAST_ENDPOINT",
            format!("http://{}", cluster.balancer().address()),
        )
        .env("HUBCAST_ACCESS_KEY", format!("{ACCESS_KEY},another-key"));
    let mut application = Process::start("llm", &mut command, directory.path());
    listens(&mut application, address).await;
    let mut ann = signalr(&cluster.nodes[0], "ann").await;
    let mut bob = signalr(&cluster.nodes[1], "bob").await;
    // Both at the same time, and each with more than one question.
    for (client, name) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        for question in 1..3 {
            let prompt = format!("{name}{question}?");
            assert_eq!(client.result("Ask", json!([question, prompt])).await, json!(null));
        }
    }
    for (client, name) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        let (mut texts, mut ends) = ([String::new(), String::new()], 0);
        let mut counts = [0, 0];
        while ends < 2 {
            let message = client.next().await.expect("it is connected");
            let arguments = &message["arguments"];
            let question = usize::from(arguments[0] == 2);
            if message["target"] == "Done" {
                assert_eq!(*arguments, json!([question + 1, counts[question], null]));
                let expected = format!(
                    "You ask: {name}{}? Nobody knows, and this model is a fake. ",
                    question + 1
                );
                assert_eq!(texts[question], expected);
                ends += 1;
                continue;
            }
            assert_eq!(message["target"], "Token");
            assert_eq!(arguments[1], counts[question], "in order: {message}");
            counts[question] += 1;
            texts[question].push_str(arguments[2].as_str().expect("a text"));
        }
    }
    // A long answer ends when its caller stops it, with a Done as well.
    let long = "why ".repeat(3_000);
    ann.result("Ask", json!([3, long])).await;
    assert_eq!(ann.expect("Token").await, json!([3, 0, "You "]));
    let twice = ann.call("Ask", json!([3, "again?"])).await;
    assert!(
        twice["error"]
            .as_str()
            .unwrap_or_default()
            .contains("once at a time"),
        "{twice}"
    );
    ann.result("Stop", json!([3])).await;
    let done = ann.expect("Done").await;
    assert!(done[1].as_u64() < Some(3_000) && done[2].is_null(), "{done}");
    assert!(bob.call("Fly", json!([])).await["error"].is_string());
    let unsigned = hubcast_tests::http::Request::post("/", "{}");
    assert_eq!(hubcast_tests::http::fetch(address, &unsigned).await.status(), 401);
    assert_eq!(application.output(), "", "no answer has failed");
}
