//! The Docker SDK for Python against the socket; the tests themselves are in `tests/docker-py`.

use std::path::Path;

use kit::{REGISTRY_PASSWORD, REGISTRY_USER, Registry, on_both};

on_both! {
    fn sdk(engine: &Engine) {
        let python = kit::cache_dir().join("python/bin/python");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker-py");
        let (open, closed) = (Registry::start(), Registry::start_with_login());
        let line = format!(
            "export WORK=$PWD PYTHONDONTWRITEBYTECODE=1 REGISTRY={} PRIVATE_REGISTRY={} REGISTRY_USER={REGISTRY_USER} REGISTRY_PASSWORD={REGISTRY_PASSWORD}; {} -W ignore -m unittest discover -s {} 2>&1",
            open.host(), closed.host(), python.display(), tests.display(),
        );
        let run = engine.shell(&line);
        assert_eq!(run.code, 0, "{run}");
        assert!(run.stdout.contains("Ran 27 tests"), "all of them ran\n{run}");
        assert!(!run.stdout.contains("skipped"), "none was skipped\n{run}");
    }
}
