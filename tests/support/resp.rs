//! As much of Redis's protocol as it takes to stand between a client and a server.

use tokio::{io::AsyncReadExt, net::TcpStream};

/// The next command or answer, of which `buffer` may hold the beginning; none at the end.
pub(crate) async fn next_frame(from: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(length) = frame_length(buffer) {
            let rest = buffer.split_off(length);
            return Some(std::mem::replace(buffer, rest));
        }
        if from.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

/// The length of the first frame of `bytes`, if it is there as a whole.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).unwrap();
    let count = || line[1..].parse::<i64>().unwrap();
    let mut length = end + 2;
    let children = match bytes[0] {
        b'$' | b'=' | b'!' => {
            if count() >= 0 {
                length += usize::try_from(count()).unwrap() + 2;
            }
            0
        }
        b'*' | b'~' | b'>' => count().max(0),
        b'%' => count() * 2,
        _ => 0,
    };
    for _ in 0..children {
        length += frame_length(bytes.get(length..)?)?;
    }
    (bytes.len() >= length).then_some(length)
}

/// The command's words, in capitals.
pub(crate) fn words(command: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(command);
    text.split("\r\n").skip(2).step_by(2).map(str::to_uppercase).collect()
}
