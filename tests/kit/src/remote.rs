//! What builds name by URL: a web server of files, and git's own server. They serve as long as the test lives.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Serves connections on a port of loopback for as long as the test lives.
fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it has an address").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

/// A web server of the files in a folder.
pub fn serve_files(folder: PathBuf) -> u16 {
    listen(move |mut stream| {
        let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines().map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        lines.take_while(|line| !line.is_empty()).for_each(drop);
        let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
        let answer = match std::fs::read(folder.join(path.trim_start_matches('/'))) {
            Ok(content) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
                [head.into_bytes(), content].concat()
            }
            Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
        };
        let _ = stream.write_all(&answer);
    })
}

/// git's own server, one process a connection.
pub fn serve_git(folder: PathBuf) -> u16 {
    listen(move |stream| {
        let out = OwnedFd::from(stream.try_clone().expect("a second handle"));
        let status = Command::new("git")
            .args(["daemon", "--inetd", "--export-all"])
            .arg(format!("--base-path={}", folder.display()))
            .stdin(Stdio::from(OwnedFd::from(stream)))
            .stdout(Stdio::from(out))
            .stderr(Stdio::null())
            .status();
        status.expect("git is installed");
    })
}
