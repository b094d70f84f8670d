//! Builds for machines of another kind: their commands run by the kernel's emulators (binfmt_misc).

use std::fs;

use e2e::session::{build, skopeo, start_with};
use kit::{Binfmt, Options, Registry};
use serde_json::Value;

#[test]
fn commands_of_another_platform_run_by_an_emulator() {
    let (boxyard, folder) = start_with(Options { sees_binfmt: true, ..Options::default() });
    let registry = Registry::start();
    for (arch, program) in
        [("amd64", fs::read("/bin/busybox").expect("a static busybox")), ("arm64", kit::arm64_uname())]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join(arch).join("uname");
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(&path, program).expect("a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH/uname /uname\nRUN [\"/uname\", \"-m\"]\n";
    fs::write(folder.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let alone = build(&boxyard, &folder, &["--platform", "linux/arm64"]);
    alone.fails(1, "did not complete successfully: exit code: ");
    assert!(alone.stderr.to_lowercase().contains("exec format error"), "{alone}");
    let emulator = Binfmt::arm64();
    let name = format!("{}/app", registry.host());
    let built = build(&boxyard, &folder, &["--platform", "linux/amd64,linux/arm64", "--push", "-t", &name]);
    built.ok();
    for (platform, machine) in [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")] {
        let step = format!(" [{platform} 2/2] RUN [\"/uname\", \"-m\"]");
        let number =
            built.stderr.lines().find_map(|line| line.strip_suffix(&step)).unwrap_or_else(|| panic!("{built}"));
        let printed = |line: &str| line.starts_with(&format!("{number} ")) && line.ends_with(&format!(" {machine}"));
        assert!(built.stderr.lines().any(printed), "{platform}: {built}");
    }
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let index: Value = serde_json::from_str(raw.ok()).expect("an index");
    let entries = index["manifests"].as_array().expect("an index").iter();
    let shown: Vec<&str> = entries.filter_map(|entry| entry["platform"]["architecture"].as_str()).collect();
    assert_eq!(shown, ["amd64", "arm64"], "{raw}");
    // Workers that begin now tell what they can run.
    boxyard.boxyard(&["worker", "start", "--name", "late"]).ok();
    let platforms = || boxyard.boxyard(&["worker", "inspect", "--format", "{{.platforms}}", "late"]).stdout;
    kit::wait_until("the worker to tell", 30, || platforms().contains("linux/arm64").then_some(()));
    drop(emulator);
    boxyard.stop();
}
