//! Messages that are too large, break off or are no messages: refused as documented, with nothing applied.

mod common;

use common::System;
use dualwright_emulator::Dialect;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn start_of(dialect: Dialect) -> (&'static str, &'static str) {
    match dialect {
        Dialect::Dataverse => ("/api/data/v9.2/accounts", "accounts"),
        Dialect::Finops => ("/data/CustomerGroups", "CustomerGroups"),
    }
}

/// Sends a head and then the body in these pieces, closes the sending side if it `breaks_off`, and gives what came back.
async fn talk(system: &System, head: &str, pieces: impl Iterator<Item = Vec<u8>>, breaks_off: bool) -> String {
    let host = system.base.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).await.expect("connects");
    stream.write_all(head.as_bytes()).await.expect("writes");
    for piece in pieces {
        stream.write_all(&piece).await.expect("the other end reads to the end");
    }
    if breaks_off {
        stream.shutdown().await.expect("closes");
    }
    let mut answer = Vec::new();
    // A connection that is reset has said what it had to say.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_too_large_is_read_and_refused() {
    const PIECE_BYTES: usize = 1024 * 1024;
    const PIECES: usize = 129;
    for dialect in [Dialect::Dataverse, Dialect::Finops] {
        let system = System::start(dialect).await;
        let (path, set) = start_of(dialect);
        for chunked in [false, true] {
            let length = match chunked {
                false => format!("Connection: close\r\nContent-Length: {}", PIECE_BYTES * PIECES),
                true => "Connection: close\r\nTransfer-Encoding: chunked".to_owned(),
            };
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{length}\r\n\r\n");
            let pieces = (0..PIECES).map(|_| match chunked {
                false => vec![b' '; PIECE_BYTES],
                true => [format!("{PIECE_BYTES:x}\r\n").as_bytes(), &vec![b' '; PIECE_BYTES], b"\r\n"].concat(),
            });
            let end = chunked.then(|| b"0\r\n\r\n".to_vec());
            let answer = talk(&system, &head, pieces.chain(end), false).await;
            assert_eq!(status(&answer), 413, "{dialect:?} {chunked}: {answer}");
            assert!(answer.contains(r#"{"error":{"code":""#), "{dialect:?} {chunked}: {answer}");
        }
        assert_eq!(system.count(set).await, 0, "{dialect:?}");
        system.end().await;
    }
}

#[tokio::test]
async fn what_breaks_off_is_not_applied() {
    for dialect in [Dialect::Dataverse, Dialect::Finops] {
        let system = System::start(dialect).await;
        let (path, set) = start_of(dialect);
        let whole = match dialect {
            Dialect::Dataverse => r#"{"name":"A"}"#,
            Dialect::Finops => r#"{"dataAreaId":"dat","CustomerGroupId":"1"}"#,
        };
        for (case, headers, body) in [
            ("fewer bytes than announced", format!("Content-Length: {}", whole.len() + 1), whole.to_owned()),
            ("half a chunk", "Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n{whole}", whole.len() + 1)),
            ("no last chunk", "Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n{whole}\r\n", whole.len())),
            ("no size of a chunk", "Transfer-Encoding: chunked".to_owned(), format!("zz\r\n{whole}\r\n0\r\n\r\n")),
        ] {
            let head =
                format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n{headers}\r\n\r\n");
            let answer = talk(&system, &head, std::iter::once(body.into_bytes()), true).await;
            // Who went away may not hear it, but it is what was answered.
            assert!(answer.is_empty() || status(&answer) == 400, "{dialect:?} {case}: {answer}");
            let last = system.emulator.requests().into_iter().find(|request| request.method == "POST");
            assert_eq!(last.map(|request| request.status), Some(400), "{dialect:?} {case}");
            assert_eq!(system.count(set).await, 0, "{dialect:?} {case}");
        }
        system.create(set, whole).await;
        assert_eq!(system.count(set).await, 1, "{dialect:?}");
        system.end().await;
    }
}
