//! Boxyard on PostgreSQL, over restarts and an outage of the database.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use kit::{Boxyard, Options, POSTGRES_PASSWORD, Postgres, busybox};

fn start(postgres: &Postgres) -> Boxyard {
    let boxyard = Boxyard::start(Options { database: Some(postgres.url()), ..Options::default() });
    boxyard.feed(&["load", "-q"], &busybox()).says("Loaded image: busybox:latest");
    boxyard
}

/// Every command line of the machine and every file of the data folder's logs.
fn shown_password(boxyard: &Boxyard) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("read /proc").flatten().map(|entry| entry.path().join("cmdline"));
    let logs =
        fs::read_dir(boxyard.data_dir().join("logs")).expect("read the logs").flatten().map(|entry| entry.path());
    let shows = |path: &std::path::PathBuf| {
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).contains(POSTGRES_PASSWORD)
    };
    processes.chain(logs).filter(shows).map(|path| path.display().to_string()).collect()
}

#[test]
fn one_gateway_over_restarts_and_an_outage() {
    let mut postgres = Postgres::start();
    let mut boxyard = start(&postgres);
    assert_eq!(shown_password(&boxyard), [] as [&str; 0], "the password is seen by others");
    let secret = fs::metadata(boxyard.data_dir().join("secrets/database")).expect("the URL is kept");
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);

    boxyard.docker(&["run", "--name", "first", "busybox", "echo", "hello"]).says("hello");
    let dockerfile = b"FROM busybox\nRUN echo built > /made\nCMD cat /made\n";
    boxyard.feed(&["build", "-t", "made", "-"], dockerfile).says("Successfully tagged made:latest");
    boxyard.feed(&["build", "-"], dockerfile).says("Using cache");
    boxyard.docker(&["run", "--rm", "made"]).says("built");
    boxyard.docker(&["create", "--name", "first", "busybox"]).fails(1, "is already in use by container");
    assert_eq!(postgres.sql("SELECT count(*) FROM containers"), "1");

    boxyard.down();
    boxyard.up();
    boxyard.docker(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"]).says("first busybox");
    boxyard.docker(&["images", "-q", "made"]).says("");

    postgres.down();
    boxyard.docker(&["ps"]).fails(1, "the database does not answer");
    boxyard.docker(&["run", "--rm", "busybox", "true"]).fails(125, "the database does not answer");
    postgres.up();
    boxyard.docker(&["run", "--rm", "busybox", "echo", "again"]).says("again");
    boxyard.docker(&["rm", "first"]).ok();
    boxyard.docker(&["rmi", "made"]).says("Untagged: made:latest");
    boxyard.stop();
}
