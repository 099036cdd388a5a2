//! `outlive replay` from outside: what a trace comes to, whichever way it is written, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const AZURE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n\
    2023-11-16 18:15:46.6805900,374,44\r\n\
    2023-11-16 18:15:46.6905900,1000,8\r\n\
    2023-11-16 18:15:47.6805900,10,0";

/// The same requests to the millisecond, but for the first two, which came at 0 and at 10 ms.
const MOONCAKE: &str = "{\"timestamp\": 0, \"input_length\": 374, \"output_length\": 44, \"hash_ids\": [0, 1]}\n\
    {\"timestamp\": 10, \"input_length\": 1000, \"output_length\": 8, \"hash_ids\": [0]}\n\
    {\"timestamp\": 1000, \"input_length\": 10, \"output_length\": 0, \"hash_ids\": []}\n";

fn replay(trace: impl AsRef<[u8]>, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t"), trace).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    command.current_dir(folder.path()).args(["replay", "t"]).args(args).output().unwrap()
}

fn results(trace: impl AsRef<[u8]>, args: &[&str]) -> Value {
    results_of(&replay(trace, &[&["--clock", "virtual", "--json"], args].concat()))
}

/// The results of a run that must end well, and whose figures add up.
fn results_of(output: &Output) -> Value {
    let (text, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{text}");
    let results: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&results["mode"], &results["audit"]["violations"]), (&json!("arbiter"), &json!([])));
    assert_eq!(sum(&results, "submitted"), sum(&results, "finished_ok"), "{text}");
    assert_eq!(sum(&results, "cycles"), results["replay"]["requests"].as_u64().unwrap());
    results
}

fn sum(results: &Value, key: &str) -> u64 {
    results["clients"].as_array().unwrap().iter().map(|client| client[key].as_u64().unwrap()).sum()
}

/// That it ends with exit code 2 and this one line on stderr, and does nothing.
fn refused(trace: impl AsRef<[u8]>, args: &[&str], parts: &[&str]) {
    let output = replay(trace, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), stderr.lines().count()), (Some(2), 0, 1), "{stderr}");
    assert!(parts.iter().all(|part| stderr.contains(part)), "{parts:?} in {stderr}");
}

#[test]
fn a_request_is_a_prefill_and_a_decode_job_for_each_eight_tokens() {
    let results = results(AZURE, &["--clients", "2"]);
    let [a, b] = [0, 1].map(|client| &results["clients"][client]);
    // In turn: the first and the third to one, the second to the other.
    assert_eq!([&a["name"], &b["name"]], [&json!("client.0"), &json!("client.1")]);
    assert_eq!([&a["cycles"], &b["cycles"]], [&json!(2), &json!(1)]);
    assert_eq!([&a["submitted"], &b["submitted"]], [&json!(1 + 6 + 1), &json!(1 + 1)]);
    assert_eq!(a["hardware_us"], json!(374 * 20 + 44 * 100 + 10 * 20));
    assert_eq!(b["hardware_us"], json!(1000 * 20 + 8 * 100));
    // At 10 ms the first decodes: the other waits for the rest of one job, and then for each other job of the first.
    assert_eq!(a["cycle_us"]["p50"], json!(200), "{a}");
    assert!((0..=800).contains(&b["wait_us"]["max"].as_u64().unwrap()), "{b}");
    // The last request came a second after the first and took 200 µs.
    assert_eq!(results["elapsed_us"], json!(1_000_200));
    assert_eq!(results["replay"]["format"], "azure-llm-2023");
    let costs = results_of(&replay(
        AZURE,
        &["--clock=virtual", "--json", "--prefill-us-per-token=2.5", "--decode-us-per-token=7"],
    ));
    assert_eq!(sum(&costs, "hardware_us"), 1384 * 5 / 2 + 52 * 7);
    assert_eq!(costs["replay"]["prefill_us_per_token"], json!(2.5));
}

#[test]
fn however_a_trace_is_written_it_says_the_same() {
    let clients = |trace: &str| results(trace, &["--clients", "3"])["clients"].clone();
    let expected = clients(AZURE);
    assert_eq!(clients(MOONCAKE), expected);
    assert_eq!(clients(&format!("\u{feff}{}\r\n\r\n", AZURE.replace(",1000,", ",\"1000\","))), expected);
    let quoted: Vec<_> = AZURE.split("\r\n").map(|line| format!("\"{}\"", line.replace(',', "\",\""))).collect();
    assert_eq!(clients(&quoted.join("\n")), expected);
    let columns =
        "output_length,timestamp,hash_ids,input_length\n44,0,[0, 1],374\n8,10,\"[0, 1]\",1000\n0,1000,[],10\n";
    assert_eq!(clients(columns), expected);
    let mixed: Vec<_> = MOONCAKE.split_inclusive('\n').rev().collect();
    assert_eq!(clients(&mixed.concat()), expected, "in the order of their arrival");
}

#[test]
fn speed_and_limit_and_policy_are_as_asked_for() {
    let fast = results(AZURE, &["--speed", "4"]);
    assert_eq!((&fast["elapsed_us"], &fast["replay"]["speed"]), (&json!(250_200), &json!(4.0)));
    let first = results(AZURE, &["--limit", "2", "--policy", "fifo", "--seed", "7"]);
    assert_eq!((&first["replay"]["requests"], sum(&first, "submitted")), (&json!(2), 9));
    assert_eq!((&first["policy"], &first["seed"]), (&json!("fifo"), &json!(7)));
    // What is wrong beyond the limit is not read.
    assert_eq!(results(format!("{AZURE}\r\nnonsense"), &["--limit", "3"])["replay"]["requests"], json!(3));
}

#[test]
fn ticks_are_spread_by_the_seed_and_real_arrivals_are_not() {
    let row = |ms: u64| format!("{{\"timestamp\":{ms},\"input_length\":100,\"output_length\":16,\"hash_ids\":[]}}\n");
    let ticks: String = (0..40).map(|number| row(number / 4 * 2999)).collect();
    let of = |trace: &str, seed: &str| {
        let mut results = results(trace, &["--seed", seed, "--clients", "4"]);
        results["seed"] = json!(0);
        results
    };
    assert_eq!(of(&ticks, "1"), of(&ticks, "1"));
    assert_ne!(of(&ticks, "1"), of(&ticks, "2"));
    // Four of 3.6 ms each at one instant would wait for each other; over three seconds they hardly meet.
    let most_us =
        of(&ticks, "1")["clients"].as_array().unwrap().iter().map(|client| client["wait_us"]["p50"].as_u64()).max();
    assert_eq!(most_us, Some(Some(0)));
    let last_us = of(&ticks, "1")["elapsed_us"].as_u64().unwrap();
    assert!((9 * 2_999_000..10 * 3_000_000).contains(&last_us), "{last_us}");
    let poisson: String = (0..40).map(|number| row(number * 170)).collect();
    assert_eq!(of(&poisson, "1"), of(&poisson, "2"));
}

#[test]
fn who_has_all_to_do_at_once_gets_an_equal_share() {
    let row = |number: u64| format!("{},{},{}\n", number, 100 + number * 37 % 400, 8 + number * 11 % 90);
    let trace: String = "timestamp,input_length,output_length\n".to_owned() + &(0..300).map(row).collect::<String>();
    for policy in ["fair", "fifo", "round-robin"] {
        let results = results(&trace, &["--clients", "5", "--policy", policy]);
        assert!(results["device_busy"].as_f64().unwrap() > 0.99, "{policy}");
        assert!(results["clients"].as_array().unwrap().iter().all(|client| client["cycles"] == json!(60)));
        if policy == "fair" {
            // 16 credits, of 10 ms at most each, in 300 ms, is all that anybody can be ahead or behind; it is far less.
            let shares: Vec<f64> = (0..5).map(|client| results["clients"][client]["share"].as_f64().unwrap()).collect();
            assert!(shares.iter().all(|share| (share - 0.2).abs() < 0.04), "{shares:?}");
        }
    }
}

#[test]
fn bad_rows_are_refused_with_their_line_or_counted() {
    let bad = |row: &str| format!("TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46,1,1\r\n{row}\r\n");
    for (row, parts) in [
        ("2023-11-16 18:15:47,1", ["the row has 2 of 3 fields", "as many as the header"]),
        ("2023-11-16 18:15:47,1,1,1", ["the row has 4 of 3 fields", "as many as the header"]),
        ("2023-11-31 18:15:47,1,1", ["`TIMESTAMP` is \"2023-11-31 18:15:47\"", "a time such as"]),
        ("2023-11-16 18:15:47,-1,1", ["`ContextTokens` is \"-1\"", "a whole number of tokens"]),
        ("2023-11-16 18:15:47,1,", ["`GeneratedTokens` is \"\"", "a whole number of tokens"]),
        ("2023-11-16 18:15:47,1,1.5", ["`GeneratedTokens` is \"1.5\"", "a whole number of tokens"]),
        ("2023-11-16 18:15:47,99999999999999999999,1", ["`ContextTokens` is", "a whole number of tokens"]),
        ("2023-11-16 18:15:47,500000,1", ["a prompt of 500,000 tokens, at 20 µs each", "less than 10 s"]),
        ("2023-11-16 18:15:47,1,1000001", ["an answer of 1,000,001 tokens", "at most 1,000,000"]),
        ("\"2023-11-16 18:15:47,1,1", ["a quote is open", "on the same line"]),
    ] {
        refused(bad(row), &[], &["t:3: ", parts[0], "; expected ", parts[1]]);
        let skipped = results(bad(row), &["--skip-bad-rows"]);
        assert_eq!([&skipped["replay"]["bad_rows"], &skipped["replay"]["requests"]], [&json!(1), &json!(1)], "{row}");
    }
    refused([bad("").as_bytes(), b"\xe9\n"].concat(), &[], &["t:4: a byte that is not UTF-8"]);
    for (row, what) in [
        ("{\"timestamp\":1", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ("{\"timestamp\":1,\"input_length\":2}", "the row has no `output_length`"),
        ("{\"timestamp\":-1,\"input_length\":2,\"output_length\":1}", "`timestamp` is \"-1\""),
        ("{\"timestamp\":1,\"input_length\":[2],\"output_length\":1}", "`input_length` is \"[2]\""),
    ] {
        refused(format!("{MOONCAKE}\n{row}"), &[], &["t:5: ", what]);
        refused(format!("{row}\n{MOONCAKE}"), &[], &["t:1: "]);
        if row.starts_with('{') {
            let skipped = results(format!("{row}\n{MOONCAKE}{row}"), &["--skip-bad-rows"]);
            assert_eq!(skipped["replay"]["bad_rows"], json!(2), "{row}");
        }
    }
    let table = replay(bad("x"), &["--clock", "virtual", "--skip-bad-rows"]);
    assert!(
        String::from_utf8_lossy(&table.stdout).contains("1 request (azure-llm-2023), 1 bad row left out, as they came")
    );
}

#[test]
fn what_is_no_trace_is_refused() {
    refused("", &[], &["t: there is no request in it; expected CSV with the columns `TIMESTAMP`", "JSON lines"]);
    refused("TIMESTAMP,ContextTokens,GeneratedTokens\n", &[], &["t: there is no request in it"]);
    refused("a,b,c\n1,2,3\n", &["--skip-bad-rows"], &["t:1: the header is \"a,b,c\"; expected CSV"]);
    refused("{\"a\":1}\n", &[], &["t:1: the keys are `a`; expected CSV"]);
    refused("{\"a\":1}\n", &["--skip-bad-rows"], &["t: none of its 1 rows makes sense"]);
    refused(b"\xff\xfe", &[], &["t:1: a byte that is not UTF-8"]);
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.csv");
    let output = Command::new(env!("CARGO_BIN_EXE_outlive")).arg("replay").arg(missing).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.csv: cannot be read: "));
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for (args, part) in [
        (&["--clients", "0"][..], "from 1 to 4096"),
        (&["--limit", "0"], "--limit"),
        (&["--speed", "0"], "expected a number from 0.001 to 1000000"),
        (&["--speed", "-1"], "-1"),
        (&["--speed", "nan"], "expected a number from"),
        (&["--prefill-us-per-token", "0"], "expected a number from"),
        (&["--decode-us-per-token", "1250000"], "expected a number from"),
        (&["--timeline", "none/t.svg"], "cannot be written"),
        (&["--trace", "t.jsonl"], "not built yet"),
        (&["--device", "vulkan"], "not built yet"),
        (&["--check"], "--check"),
    ] {
        refused(AZURE, args, &[part]);
    }
}

#[test]
fn pictures_and_the_real_clock_do_as_in_a_run() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t"), AZURE).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outlive"));
    let args = ["replay", "t", "--speed", "10", "--json", "--timeline", "t.svg", "--frames", "f"];
    let results = results_of(&command.current_dir(folder.path()).args(args).output().unwrap());
    assert_eq!((&results["clock"], sum(&results, "submitted")), (&json!("real"), 10));
    assert!(results["elapsed_us"].as_u64().unwrap() >= 100_000);
    assert!(fs::read_to_string(folder.path().join("t.svg")).unwrap().contains("client.23"));
    assert_eq!(fs::read_dir(folder.path().join("f")).unwrap().count(), 0, "requests draw nothing");
    let quiet = replay(AZURE, &["--quiet", "--clock", "virtual"]);
    assert_eq!((quiet.status.code(), quiet.stdout.len() + quiet.stderr.len()), (Some(0), 0));
}

#[test]
fn the_table_says_what_is_assumed() {
    let output = replay(AZURE, &["--clock", "virtual", "--speed", "2.5"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("3 requests (azure-llm-2023), 2.5 times as fast as they came, to 24 clients in turn\n"),
        "{text}"
    );
    assert!(text.contains("Assumed, as traces have lengths only: 20 µs of hardware time"), "{text}");
    assert!(text.contains("request") && !text.contains("cycle") && text.contains("Audit: clean"), "{text}");
}

/// The public traces, where they are: the first requests of each, so that a debug build has done with them.
#[test]
fn public_traces_saturate_the_device() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    for (path, format) in [
        ("azure-llm-2023/AzureLLMInferenceTrace_conv.csv", "azure-llm-2023"),
        ("azure-llm-2023/AzureLLMInferenceTrace_code.csv", "azure-llm-2023"),
        ("mooncake-fast25/conversation_trace.jsonl", "mooncake"),
    ] {
        let path = Path::new(data).join(path);
        if !path.exists() {
            continue;
        }
        let args = ["--clock", "virtual", "--json", "--speed", "1000", "--limit", "150"];
        let output = Command::new(env!("CARGO_BIN_EXE_outlive")).arg("replay").arg(&path).args(args).output().unwrap();
        let results = results_of(&output);
        assert_eq!((&results["replay"]["format"], &results["replay"]["requests"]), (&json!(format), &json!(150)));
        assert!(results["device_busy"].as_f64().unwrap() > 0.99, "{results}");
    }
}
