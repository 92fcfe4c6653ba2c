//! The table of calls is whole: all of the protos, all of the source, and each goes where it says.

use std::collections::BTreeSet;
use std::path::Path;

use super::LIMITS;
use super::calls::{Bench, CHANGES, QUESTIONS};

fn texts(dir: &str, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == end))
        .map(|p| std::fs::read_to_string(p).unwrap())
        .collect()
}

/// The paths of all calls that a proto has.
fn paths(proto: &str) -> Vec<String> {
    let (mut package, mut service, mut out) = ("", "", Vec::new());
    for line in proto.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("package ") {
            package = rest.trim_end_matches(';');
        } else if let Some(rest) = line.strip_prefix("service ") {
            service = rest.split([' ', '{']).next().unwrap();
        } else if let Some(rest) = line.strip_prefix("rpc ") {
            out.push(format!("/{package}.{service}/{}", rest.split('(').next().unwrap().trim()));
        }
    }
    out
}

/// The methods of a node in a source: name, and whether it takes a permit.
fn methods(source: &str) -> Vec<(String, bool)> {
    let signatures = source.split("pub async fn ").skip(1).map(|rest| rest.split('{').next().unwrap());
    let of_node = signatures.filter(|signature| signature.split_whitespace().collect::<String>().contains("(&self"));
    let name = |signature: &str| signature.split(['(', '<']).next().unwrap().to_owned();
    of_node.map(|signature| (name(signature), signature.contains("&Permit"))).collect()
}

#[test]
fn each_rpc_of_the_protos_is_in_a_table_and_no_other() {
    let known: Vec<String> = texts("proto", "proto").iter().flat_map(|proto| paths(proto)).collect();
    let known_once: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    let called: BTreeSet<&str> = CHANGES.iter().chain(&QUESTIONS).map(|call| call.path).collect();
    assert_eq!(called, known_once);
    // A configuration can be applied, or it can be asked what that would come to.
    let changing: BTreeSet<&str> = CHANGES.iter().map(|call| call.path).collect();
    let both: Vec<_> = QUESTIONS.iter().filter(|call| changing.contains(call.path)).map(|call| call.method).collect();
    assert_eq!((known.len(), known_once.len(), changing.len(), both), (30, 30, 13, vec!["dry_run"]));

    // A new one would be seen.
    let proto = "package machine;\nservice MachineService {\n  rpc MetaWrite(MetaWriteRequest) returns (MetaWriteResponse);\n}\n";
    assert_eq!(paths(proto), ["/machine.MachineService/MetaWrite"]);
    assert!(!called.contains("/machine.MachineService/MetaWrite"));
}

#[test]
fn each_method_of_the_provider_is_in_the_table_that_its_permit_says() {
    let sources = texts("src/talos", "rs");
    let found: BTreeSet<(String, bool)> = sources.iter().flat_map(|source| methods(source)).collect();
    let row = |permit: bool| move |method: &&str| ((*method).to_owned(), permit);
    let changes = CHANGES.map(|call| call.method);
    let questions = QUESTIONS.map(|call| call.method);
    let tabled: BTreeSet<_> = changes.iter().map(row(true)).chain(questions.iter().map(row(false))).collect();
    assert_eq!(tabled, found);
    assert_eq!(found.len(), 40);

    let source = "pub async fn ask<T: Of>(&self) -> T {}\npub async fn write(\n        &self,\n        permit: &Permit,\n    ) {}";
    assert_eq!(methods(source), [("ask".to_owned(), false), ("write".to_owned(), true)]);
}

#[tokio::test]
async fn each_call_goes_where_the_table_says_and_is_noted_where_it_is_a_change() {
    let mut made = 0;
    for (call, changes) in CHANGES.iter().map(|c| (c, 1)).chain(QUESTIONS.iter().map(|q| (q, 0))) {
        let bench = Bench::start(LIMITS).await;
        bench.ready(call);
        let outcome = bench.make(call).await;
        assert!(outcome.is_ok(), "{}: {outcome:?}", call.method);
        assert_eq!((bench.times(call), bench.diary.notes().len()), (1, changes), "{}", call.method);
        assert_eq!(bench.fake.asked().last().unwrap().path, call.path);
        made += 1;
    }
    assert_eq!(made, 40);
}
