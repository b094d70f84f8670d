//! Contexts by URL: a Dockerfile, an archive and a repository, fetched by the docker command itself and, over the API
//! (`remote=`), by the engine.

use std::path::{Path, PathBuf};

use kit::{Engine, on_both, serve_files, serve_git};

/// Builds as a program does: the engine fetches. Gives its lines.
#[track_caller]
fn remote(engine: &Engine, url: &str, more: &str) -> String {
    let encoded = url.replace('#', "%23").replace('/', "%2F").replace(':', "%3A");
    let answer = engine.api("POST", &format!("/v1.41/build?remote={encoded}{more}"), "");
    answer.text()
}

fn repository(engine: &Engine) -> PathBuf {
    let lines = [
        "git init -q -b master work && cd work && git config user.email a@b.c && git config user.name tester",
        "printf 'FROM busybox\\nCOPY file /file\\nRUN cat /file\\n' > Dockerfile && echo on main > file",
        "echo ignored > a.log && echo '*.log' > .dockerignore",
        "mkdir sub && printf 'FROM busybox\\nCOPY . /sub\\nRUN ls /sub; cat /sub/deep\\n' > sub/Dockerfile",
        "echo deep in main > sub/deep && git add -A && git commit -q -m one && git tag v1",
        "git checkout -q -b other && echo on other > file && git commit -q -am two && git checkout -q master",
        "cd .. && git clone -q --bare work served/r.git && git -C served/r.git update-server-info",
    ];
    engine.shell(&format!("mkdir -p served && {}", lines.join(" && "))).ok();
    engine.work_dir().join("served")
}

fn is_there(folder: &Path) -> bool {
    folder.join("r.git/HEAD").exists()
}

on_both! {
    fn files_by_http(engine: &Engine) {
        engine.write("w/Dockerfile", "FROM busybox\nRUN echo by address\n");
        engine.write("c/own.Dockerfile", "FROM busybox\nCOPY packed /\nRUN cat /packed\n");
        engine.write("c/packed", "from the archive\n");
        engine.shell("cp c/own.Dockerfile c/Dockerfile && tar -C c -czf w/c.tgz .").ok();
        let port = serve_files(engine.work_dir().join("w"));
        let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");

        engine.docker(&["build", "-t", "one", &url("Dockerfile")]).says("\nby address\n").says("Successfully tagged one:latest");
        engine.docker(&["build", &url("c.tgz")]).says("\nfrom the archive\n");
        engine.docker(&["build", "-f", "own.Dockerfile", &url("c.tgz")]).says("Using cache");
        engine.docker(&["build", &url("nosuch")]).fails(1, "404");

        let text = remote(engine, &url("Dockerfile"), "&t=two");
        assert!(text.contains("Using cache") && text.contains("Successfully tagged two:latest"), "{text}");
        let text = remote(engine, &url("c.tgz"), "&dockerfile=own.Dockerfile");
        assert!(text.contains("Using cache") && text.contains("Successfully built"), "{text}");
        let text = remote(engine, &url("nosuch"), "");
        assert!(text.contains("404") && text.contains(&url("nosuch")), "{text}");
        let text = remote(engine, "ftp://127.0.0.1/x", "");
        assert!(text.contains("message") && text.contains("ftp://127.0.0.1/x"), "{text}");
        assert_eq!(engine.docker(&["images", "-q", "one"]).ok(), engine.docker(&["images", "-q", "two"]).ok());
    }

    fn repositories(engine: &Engine) {
        let served = repository(engine);
        assert!(is_there(&served));
        let git = format!("git://127.0.0.1:{}/r.git", serve_git(served.clone()));
        let http = format!("http://127.0.0.1:{}/r.git", serve_files(served));
        engine.docker(&["build", "-t", "g", &git]).says("\non main\n").says("Successfully tagged g:latest");
        engine.docker(&["build", &format!("{git}#other")]).says("\non other\n");
        engine.docker(&["build", &format!("{git}#v1:sub")]).says("\ndeep in main\n").hides("a.log");
        for url in [&git, &http] {
            let text = remote(engine, url, "&t=r&nocache=1");
            assert!(text.contains("on main") && text.contains("Successfully tagged r:latest"), "{url}: {text}");
            let text = remote(engine, &format!("{url}#other"), "&nocache=1");
            assert!(text.contains("on other"), "{url}: {text}");
            let text = remote(engine, &format!("{url}#:sub"), "&nocache=1");
            assert!(text.contains("deep in main") && !text.contains("a.log"), "{url}: {text}");
            let text = remote(engine, &format!("{url}#nosuch"), "");
            assert!(text.contains("nosuch") && !text.contains("Successfully"), "{url}: {text}");
            let text = remote(engine, &format!("{url}#:../.."), "");
            assert!(!text.contains("Successfully"), "{url}: {text}");
        }
        assert_eq!(engine.docker(&["run", "--rm", "r", "cat", "/file"]).ok(), "on main");
    }
}
