//! What each format looks like.

use super::*;

fn output(format: Format) -> Output {
    Output { format, header: true, separator: b'\n' }
}

fn print(format: Format, columns: Columns, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut printer = output(format).pairs_to(columns, &mut out);
    for (key, value) in pairs {
        printer.push(key, value).unwrap();
    }
    assert_eq!(printer.finish().unwrap(), pairs.len() as u64);
    out
}

fn text(format: Format, columns: Columns, pairs: &[(&[u8], &[u8])]) -> String {
    String::from_utf8(print(format, columns, pairs)).unwrap()
}

const TWO: &[(&[u8], &[u8])] = &[(b"a", b"1\t2"), (b"\xff", b"say \"x\", y")];

#[test]
fn plain_is_one_escaped_record_per_line() {
    assert_eq!(text(Format::Plain, Columns::Pair, TWO), "a\t1\\t2\n\\xff\tsay \"x\", y\n");
    assert_eq!(text(Format::Plain, Columns::Key, TWO), "a\n\\xff\n");
    assert_eq!(text(Format::Plain, Columns::Value, &TWO[..1]), "1\\t2\n");
}

#[test]
fn raw_is_the_bytes() {
    assert_eq!(print(Format::Raw, Columns::Value, &[(b"k", b"\x00\xff")]), b"\x00\xff");
    assert_eq!(print(Format::Raw, Columns::Pair, TWO), b"a\t1\t2\n\xff\tsay \"x\", y\n");
}

#[test]
fn json_is_one_document_and_tags_what_is_no_text() {
    let list: Value = serde_json::from_str(&text(Format::Json, Columns::Pair, TWO)).unwrap();
    assert_eq!(list[0], serde_json::json!({"key": "a", "value": "1\t2"}));
    assert_eq!(list[1]["key_b64"], "/w==");
    assert_eq!(text(Format::Json, Columns::Pair, &[]), "[]\n");
    let one: Value = serde_json::from_str(&text(Format::Json, Columns::Value, &TWO[..1])).unwrap();
    assert_eq!(one, serde_json::json!({"key": "a", "value": "1\t2"}));
    assert_eq!(text(Format::Jsonl, Columns::Key, TWO), "{\"key\":\"a\"}\n{\"key_b64\":\"/w==\"}\n");
}

#[test]
fn lists_have_a_shape_for_people_for_pipes_and_for_programs() {
    let record = |id: u64| Record {
        cells: vec![id.to_string(), "a,b".to_owned()],
        json: serde_json::json!({ "id": id.to_string(), "start": "a,b" }),
    };
    let print = |format| {
        let mut out = Vec::new();
        output(format).records_to(&mut out, &["id", "start"], vec![record(1), record(2)]).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(print(Format::Plain), "1\ta,b\n2\ta,b\n");
    assert_eq!(print(Format::Csv), "id,start\n1,\"a,b\"\n2,\"a,b\"\n");
    assert_eq!(
        print(Format::Json),
        "[{\"id\":\"1\",\"start\":\"a,b\"},{\"id\":\"2\",\"start\":\"a,b\"}]\n"
    );
    assert_eq!(print(Format::Jsonl).lines().count(), 2);
    assert!(print(Format::Table).contains("start"));
}

#[test]
fn json_is_read_back() {
    for (key, value) in TWO {
        let Value::Object(object) = json_pair(Columns::Pair, key, value) else {
            panic!("an object")
        };
        assert_eq!(json_bytes(&object, "key").unwrap().as_deref(), Some(*key));
        assert_eq!(json_bytes(&object, "value").unwrap().as_deref(), Some(*value));
        assert_eq!(json_bytes(&object, "other"), Ok(None));
    }
    let bad = serde_json::json!({"key": 1, "value_b64": "?"});
    let Value::Object(bad) = bad else { panic!("an object") };
    assert!(json_bytes(&bad, "key").is_err() && json_bytes(&bad, "value").is_err());
}

#[test]
fn csv_quotes_and_has_a_header_even_when_empty() {
    let expected = "key,value\na,1\\t2\n\\xff,\"say \"\"x\"\", y\"\n";
    assert_eq!(text(Format::Csv, Columns::Pair, TWO), expected);
    assert_eq!(text(Format::Csv, Columns::Key, &[]), "key\n");
}

#[test]
fn a_table_comes_in_blocks_and_holds_every_row() {
    let keys: Vec<String> = (0..TABLE_ROWS + 3).map(|n| format!("key{n}")).collect();
    let pairs: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_bytes(), &b"v"[..])).collect();
    let table = text(Format::Table, Columns::Pair, &pairs);
    assert!(keys.iter().all(|key| table.contains(key.as_str())));
    assert_eq!(text(Format::Table, Columns::Value, &TWO[..1]), "1\\t2\n");
}
