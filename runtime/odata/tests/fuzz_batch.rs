//! Multipart bodies from anywhere: read or refused, and what was read survives being written and read again.

use dualwright_odata::batch::{
    BatchError, Item, OPERATIONS_MAX, Request, encode_requests, encode_responses, parse_requests, parse_responses,
};

/// Pieces that a batch is made of. Bytes choose among them, so that most inputs look like batches.
const PIECES: [&str; 24] = [
    "--b\r\n",
    "--b--\r\n",
    "--b--",
    "--b",
    "Content-Type: application/http\r\n",
    "Content-Type: multipart/mixed; boundary=c\r\n",
    "Content-Type: multipart/mixed; boundary=\"b\"\n",
    "Content-Transfer-Encoding: binary\r\n",
    "Content-ID: 1\r\n",
    "Content-ID: <2>\n",
    "\r\n",
    "\n",
    "--c\r\n",
    "--c--\r\n",
    "POST /api/data/v9.2/accounts HTTP/1.1\r\n",
    "GET accounts?$filter=name eq 'a b'\n",
    "PATCH $1 HTTP/1.1\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 400\n",
    "If-Match: W/\"1\"\r\n",
    "{\"a\":\"ü\"}",
    "--b \t\r\n",
    " ",
    ":",
];

fn assembled(choices: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for &choice in choices {
        match PIECES.get(usize::from(choice)) {
            Some(piece) => body.extend_from_slice(piece.as_bytes()),
            None => body.push(choice),
        }
    }
    body
}

fn check(content_type: &str, body: &[u8]) {
    match parse_requests(content_type, body) {
        Ok(items) => {
            let count = items.iter().map(|item| match item {
                Item::Single(_) => 1,
                Item::ChangeSet(all) => all.len(),
            });
            assert!(count.sum::<usize>() <= OPERATIONS_MAX);
            let (content_type, body) = encode_requests(&items);
            let again = parse_requests(&content_type, &body).expect("what was written is read");
            assert_eq!(again, with_positions(items));
        }
        Err(BatchError::Malformed { at, .. }) => assert!(at <= body.len(), "{at} lies behind the end"),
        Err(BatchError::NotMultipart | BatchError::TooManyOperations { .. }) => {}
    }
    if let Ok(items) = parse_responses(content_type, body) {
        let (content_type, body) = encode_responses(&items);
        assert_eq!(parse_responses(&content_type, &body).expect("what was written is read"), items);
    }
}

/// Writing gives an operation of a change set its position as its Content-ID when it has none.
fn with_positions(mut items: Vec<Item<Request>>) -> Vec<Item<Request>> {
    for item in &mut items {
        if let Item::ChangeSet(all) = item {
            for (at, request) in all.iter_mut().enumerate() {
                request.content_id.get_or_insert_with(|| (at + 1).to_string());
            }
        }
    }
    items
}

#[test]
fn batches_made_of_pieces() {
    bolero::check!().for_each(|choices: &[u8]| check("multipart/mixed; boundary=b", &assembled(choices)));
}

#[test]
fn any_bytes_under_any_content_type() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let (head, body) = bytes.split_at(bytes.len().min(24));
        check(&String::from_utf8_lossy(head), body);
        check(&format!("multipart/mixed; boundary={}", String::from_utf8_lossy(head)), body);
    });
}
