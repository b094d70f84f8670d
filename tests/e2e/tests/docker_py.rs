//! The Docker SDK for Python against the socket; the tests themselves are in `tests/docker-py`.

use std::path::Path;

use kit::on_both;

on_both! {
    fn sdk(engine: &Engine) {
        let python = kit::cache_dir().join("python/bin/python");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker-py");
        let line = format!("WORK=$PWD PYTHONDONTWRITEBYTECODE=1 {} -W ignore -m unittest discover -s {} 2>&1", python.display(), tests.display());
        let run = engine.shell(&line);
        assert_eq!(run.code, 0, "{run}");
        assert!(run.stdout.contains("Ran 19 tests"), "all of them ran\n{run}");
        assert!(!run.stdout.contains("skipped"), "none was skipped\n{run}");
    }
}
