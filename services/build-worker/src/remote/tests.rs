use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;

fn repository(url: &str) -> Repository {
    Repository::parse(url).expect(url).expect("a repository")
}

#[test]
fn repositories_and_files_are_told_apart() {
    for yes in
        ["git://h/r", "github.com/a/b", "git@h:a/b.git", "https://h/a.git", "http://h/a.git#main:sub", "ssh://h/r"]
    {
        assert!(git::is_git(yes), "{yes}");
    }
    for no in ["https://h/Dockerfile", "http://h/a.git/x", "ftp://h/a.git", "https://h/x?y=.git"] {
        assert!(!git::is_git(no), "{no}");
    }
    let words = |repository: Repository| (repository.url, repository.reference, repository.folder);
    let some = |text: &str| Some(text.to_owned());
    for (url, parsed) in [
        ("github.com/a/b#v1:sub/dir", ("https://github.com/a/b", some("v1"), some("sub/dir"))),
        ("git://h/r#:sub", ("git://h/r", None, some("sub"))),
        ("https://h/a.git?tag=v1&subdir=docs", ("https://h/a.git", some("refs/tags/v1"), some("docs"))),
        ("https://h/a.git?branch=refs/heads/b", ("https://h/a.git", some("refs/heads/b"), None)),
        ("https://h/a.git?ref=x#x", ("https://h/a.git", some("x"), None)),
        ("https://h/a.git?commit=abc", ("https://h/a.git", some("abc"), None)),
    ] {
        assert_eq!(words(repository(url)), (parsed.0.to_owned(), parsed.1, parsed.2), "{url}");
    }
    for (url, why) in [
        ("git://h/r#--upload-pack=x", "invalid refspec: --upload-pack=x"),
        ("https://h/a.git?ref=x#y", "ref conflicts: \"y\" vs \"x\""),
        ("https://h/a.git?tag=x&branch=y", "branch conflicts with tag"),
        ("https://h/a.git?tag=", "query \"tag\" has no value"),
        ("https://h/a.git?what=1", "unexpected query \"what\""),
        ("https://h/a.git?keep-git-dir=perhaps", "invalid keep-git-dir value: \"perhaps\""),
    ] {
        assert_eq!(Repository::parse(url).expect_err(url), why);
    }
    assert!(repository("https://h/a.git?keep-git-dir").keeps_git_dir(false));
    assert!(!repository("https://h/a.git?keep-git-dir=0").keeps_git_dir(true));
    for (path, outside) in [("a/../b", false), ("/a", false), ("..", true), ("a/../../b", true)] {
        assert_eq!(git::leaves(Path::new(path)), outside, "{path}");
    }
}

#[test]
fn names_of_files() {
    for (url, expected) in
        [("http://h/a/b.tgz?x=/y", Some("b.tgz")), ("http://h/a/", None), ("http://h", None), ("http://h/..", None)]
    {
        assert_eq!(http::file_name(url).as_deref(), expected, "{url}");
    }
    let file = |url: &str| proto::RemoteFile { url: url.to_owned(), ..proto::RemoteFile::default() };
    assert_eq!(name_of(&file("http://h/")), "__unnamed__");
    let one = file("http://h/a");
    assert_eq!(
        key(&one, Archives::Kept),
        key(&proto::RemoteFile { checksum: "sha256:x".to_owned(), ..one.clone() }, Archives::Kept)
    );
    assert_ne!(key(&one, Archives::Kept), key(&proto::RemoteFile { name: "b".to_owned(), ..one }, Archives::Kept));
    let tree = file("https://h/a.git#main:sub");
    assert_eq!(
        key(&tree, Archives::Kept),
        key(&file("https://h/a.git#main"), Archives::Kept),
        "all folders come out of one layer"
    );
    assert_ne!(
        key(&tree, Archives::Kept),
        key(&proto::RemoteFile { keep_git_dir: true, ..tree.clone() }, Archives::Kept)
    );
}

/// Answers each request with what `answer` says to its head.
async fn serve(answer: fn(&str) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut lines = BufReader::new(&mut stream).lines();
            let mut head = String::new();
            while let Ok(Some(line)) = lines.next_line().await
                && !line.is_empty()
            {
                head.push_str(&line.to_lowercase());
                head.push('\n');
            }
            let _ = stream.write_all(answer(&head).as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_file_that_is_unchanged_does_not_come_again() {
    // As in a worker, the store's client has chosen the provider of TLS by then.
    drop(distribution::Store::new("http://127.0.0.1:1", ""));
    let address = serve(|head| match head {
        head if head.contains("if-none-match: \"one\"") => "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned(),
        head if head.starts_with("get /f ") => "HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: 4\r\n\
            Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nConnection: close\r\n\r\ntext"
            .to_owned(),
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope".to_owned(),
    })
    .await;
    let temp = tempfile::tempdir().expect("temp folder");
    let url = format!("http://{address}/f");
    let wanted = http::Wanted { url: &url, name: "f", known: None };
    let http::Answer::New(download) = http::get(&wanted, temp.path().join("a")).await.expect("comes") else {
        panic!("it was not known");
    };
    let metadata = std::fs::metadata(download.folder.join("f")).expect("written");
    let modified = metadata.modified().expect("a time").duration_since(std::time::UNIX_EPOCH).expect("later");
    assert_eq!(modified.as_secs(), 1_445_412_480);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777, 0o600);
    assert_eq!(download.digest, Digest::of(b"text"));
    let again = http::Wanted { known: Some(&download.validators), ..wanted };
    let answer = http::get(&again, temp.path().join("b")).await.expect("answered");
    assert!(matches!(answer, http::Answer::Unchanged));
    let missing = format!("http://{address}/other");
    let missing = http::Wanted { url: &missing, name: "f", known: None };
    let error = http::get(&missing, temp.path().join("c")).await.expect_err("not there");
    assert_eq!(error.as_buildkit(), "invalid response status 404");
    assert_eq!(error.to_string(), format!("failed to GET {} with status 404 Not Found: nope", missing.url));
}

/// A real git server on loopback; it ends with the test.
struct GitServer {
    daemon: Child,
    _folder: tempfile::TempDir,
    url: String,
}

impl GitServer {
    /// Serves a repository with two commits, the first of which has the tag `v1`.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("temp folder");
        let work = folder.path().join("r.git");
        std::fs::create_dir_all(work.join("sub")).expect("folder");
        run(&work, &["init", "--quiet", "--initial-branch=main"]);
        for (content, tag) in [("one", Some("v1")), ("two", None)] {
            std::fs::write(work.join("sub/file"), content).expect("file");
            run(&work, &["add", "."]);
            run(&work, &["commit", "--quiet", "--message", content]);
            if let Some(tag) = tag {
                run(&work, &["tag", "--annotate", "--message", tag, tag]);
            }
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let base = folder.path().display();
        let daemon = Command::new("git")
            .args(["daemon", "--export-all", "--listen=127.0.0.1", "--reuseaddr"])
            .args([format!("--port={port}"), format!("--base-path={base}")])
            .stderr(Stdio::null())
            .spawn()
            .expect("git daemon");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Self { daemon, _folder: folder, url: format!("git://127.0.0.1:{port}/r.git") }
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        // git runs its daemon as a child of its own, which ends when it is asked to.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.daemon.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.daemon.wait();
    }
}

fn run(folder: &Path, words: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(words)
        .current_dir(folder)
        .env("GIT_COMMITTER_DATE", "2020-01-02T03:04:05Z")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .status()
        .expect("git runs");
    assert!(done.success(), "git {words:?}");
}

#[tokio::test]
async fn a_repository_is_the_same_tree_each_time() {
    let server = GitServer::start();
    let temp = tempfile::tempdir().expect("temp folder");
    let near = temp.path().join("x");
    let main = repository(&server.url).at(&Access::default()).commit(&near).await.expect("a commit");
    let tagged = repository(&format!("{}#v1", server.url));
    let first = tagged.at(&Access::default()).commit(&near).await.expect("a commit");
    assert!(git::is_commit(&main) && git::is_commit(&first) && main != first);
    let into = temp.path().join("tree");
    std::fs::create_dir(&into).expect("folder");
    tagged.at(&Access::default()).check_out(&into, &first, false).await.expect("checked out");
    assert_eq!(std::fs::read_to_string(into.join("sub/file")).expect("there"), "one");
    assert!(!into.join(".git").exists());
    let modified = std::fs::metadata(into.join("sub/file")).expect("there").modified().expect("a time");
    let seconds = modified.duration_since(std::time::UNIX_EPOCH).expect("later").as_secs();
    assert_eq!(seconds, 1_577_934_245, "the commit's own time");
    let kept = temp.path().join("kept");
    std::fs::create_dir(&kept).expect("folder");
    tagged.at(&Access::default()).check_out(&kept, &first, true).await.expect("checked out");
    assert!(kept.join(".git").is_dir());
    let error = repository(&format!("{}#nope", server.url))
        .at(&Access::default())
        .commit(&near)
        .await
        .expect_err("no such branch");
    assert!(error.to_string().starts_with("repository does not contain ref nope"), "{error}");
}
