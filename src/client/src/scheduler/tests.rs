use super::*;

#[test]
fn urls_and_addresses_name_the_same_endpoint() {
    assert_eq!(host_port("http://127.0.0.1:2379/"), "127.0.0.1:2379");
    assert_eq!(host_port("127.0.0.1:2379"), "127.0.0.1:2379");
}
