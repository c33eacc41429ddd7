//! Values on their way through a hub.

use hubcast_tests::cluster::Cluster;
use hubcast_tests::hub_client::{HubClient, Transport};

proves_on_one_node_and_on_two! { |plan| plan;
    numbers_keep_their_last_digit,
    text_keeps_its_escapes_or_its_meaning,
}

async fn echoed(client: &mut HubClient, argument: &str) -> String {
    let call =
        format!("{{\"type\":1,\"invocationId\":\"0\",\"target\":\"Echo\",\"arguments\":[{argument}]}}\u{1e}");
    client.send(call).await;
    let answer = client.receive().await.expect("an answer");
    let answer = std::str::from_utf8(&answer).unwrap();
    let result = answer
        .strip_prefix("{\"type\":3,\"invocationId\":\"0\",\"result\":")
        .expect(answer);
    result.strip_suffix("}\u{1e}").expect(answer).to_owned()
}

async fn numbers_keep_their_last_digit(cluster: &mut Cluster) {
    let mut client = HubClient::connect(&cluster.entry(), Transport::WebSockets).await;
    for number in [
        "0.1",
        "-1.5e-300",
        "1.7976931348623157e308",
        "5e-324",
        "-0.0",
        "1E2",
        "9007199254740993",
    ] {
        let echoed = echoed(&mut client, number).await;
        let bits = |text: &str| text.parse::<f64>().unwrap().to_bits();
        assert_eq!(bits(&echoed), bits(number), "{number} came back as {echoed}");
    }
    for integer in ["18446744073709551615", "-9223372036854775808"] {
        assert_eq!(echoed(&mut client, integer).await, integer);
    }
}

async fn text_keeps_its_escapes_or_its_meaning(cluster: &mut Cluster) {
    let mut client = HubClient::connect(&cluster.entry(), Transport::WebSockets).await;
    for text in [
        r#""\u001e""#,
        r#""\u0000\b\f\n\r\t\"\\\/""#,
        r#""\ud83d\ude00""#,
        "\"\u{7f}\u{2028}ä€😀\"",
        "\"\"",
    ] {
        let echoed = echoed(&mut client, text).await;
        let meaning = |text: &str| serde_json::from_str::<String>(text).expect("a JSON string");
        assert_eq!(meaning(&echoed), meaning(text), "{text} came back as {echoed}");
    }
}
