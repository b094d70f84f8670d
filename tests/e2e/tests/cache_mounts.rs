//! What `RUN --mount=type=cache` keeps: the same on whichever worker a step runs.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use kit::{Boxyard, Client, Options, Output, wait_until};
use serde_json::Value;

/// A Boxyard with busybox and workers that are called by the label `name`: w0, w1 and so on, in the order of their ids.
fn farm(workers: usize, flags: &[&str]) -> (Boxyard, Vec<String>) {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let workers_wanted = u32::try_from(workers).expect("few");
    let boxyard = Boxyard::start(Options { workers: workers_wanted, flags, ..Options::default() });
    boxyard.feed(&["load", "-q"], &kit::busybox()).ok();
    let known = || Client::new(boxyard.socket()).get_json("/boxyard/v1/workers")["items"].as_array().cloned();
    let items = wait_until("all workers to be known", 30, || known().filter(|items| items.len() == workers));
    let mut ids: Vec<String> = items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    for (number, id) in ids.iter().enumerate() {
        boxyard.boxyard(&["worker", "label", id, &format!("name=w{number}")]).ok();
    }
    (boxyard, ids)
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A build whose one step runs `script` with a cache on `/c` on worker `w<worker>`; no earlier step is the same.
fn step(boxyard: &Boxyard, worker: usize, mount: &str, script: &str) -> Output {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let context = boxyard.work_dir().join(number.to_string());
    fs::create_dir_all(&context).expect("a folder");
    let run = format!("RUN --mount=type=cache,target=/c,{mount} : {number}; {script}");
    fs::write(context.join("Dockerfile"), format!("FROM busybox\n{run}\n")).expect("written");
    let label = format!("--worker-label=name=w{worker}");
    boxyard.boxyard(&["build", "--progress=plain", &label, context.to_str().expect("a path")])
}

fn said(built: &Output) -> String {
    [built.ok(), built.stderr.as_str()].concat()
}

/// The cache as the gateway knows it.
fn cache(boxyard: &Boxyard, id: &str) -> Option<Value> {
    let caches = Client::new(boxyard.socket()).get_json("/boxyard/v1/caches");
    caches["items"].as_array().expect("a list").iter().find(|cache| cache["id"] == id).cloned()
}

/// Bytes of caches that a worker has brought (`in`) or stored (`out`), read when they are told next.
fn moved(boxyard: &Boxyard, worker: &str, direction: &str) -> u64 {
    let page = Client::new(boxyard.socket()).send("GET", "/boxyard/v1/metrics", "", "").expect("a page").text();
    let is_it = |line: &&str| {
        line.starts_with("boxyard_cache_mount_bytes_total{")
            && line.contains(&format!("id=\"{worker}\""))
            && line.contains(&format!("direction=\"{direction}\""))
    };
    let value = page.lines().find(is_it).and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    value.map_or(0, |value| value as u64)
}

#[test]
fn a_locked_cache_counts_on_all_workers() {
    let (boxyard, _) = farm(2, &[]);
    let count = "n=$(cat /c/n 2>/dev/null || echo 0); sleep 0.2; echo $((n+1)) > /c/n; echo now $((n+1))";
    for round in 0..4 {
        let built = step(&boxyard, round % 2, "id=count,sharing=locked", count);
        assert!(said(&built).contains(&format!("now {}", round + 1)), "{built}");
    }
    // A step that fails has written what it wrote.
    step(&boxyard, 0, "id=count,sharing=locked", &format!("{count}; exit 3")).fails(1, "exit code: 3");
    std::thread::scope(|scope| {
        let build = |round: usize| step(&boxyard, round % 2, "id=count,sharing=locked", count).ok().to_owned();
        (0..4).map(|round| scope.spawn(move || build(round))).collect::<Vec<_>>().into_iter().for_each(|built| {
            built.join().expect("built");
        });
    });
    let built = step(&boxyard, 1, "id=count,sharing=locked", count);
    assert!(said(&built).contains("now 10"), "{built}");
    boxyard.stop();
}

const FILLS: &str = "head -c 3000000 /dev/urandom > /c/big; mkdir -p /c/d/e; echo one > /c/d/a; ln /c/d/a /c/d/b; \
                     ln -s /etc/passwd /c/l; chown 7:8 /c/d/a; chmod 4751 /c/d/a; touch -d '2001-02-03 04:05:06' /c/d/a /c/d; \
                     for n in $(seq 300); do echo $n > /c/d/e/$n; done; chmod 1777 /c; sha256sum /c/big";

#[test]
fn what_one_worker_wrote_is_found_by_the_other_and_only_once() {
    let (boxyard, ids) = farm(2, &[]);
    let filled = said(&step(&boxyard, 0, "id=files", FILLS));
    let is_sum = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sum = filled.split_whitespace().find(is_sum).expect("a sum").to_owned();
    let stored = wait_until("what the step wrote to be stored", 30, || cache(&boxyard, "files"));
    assert_eq!((stored["sharing"].as_str(), stored["files"].as_u64()), (Some("shared"), Some(303)), "{stored}");
    let looks = "sha256sum /c/big; stat -c '%a %u:%g %h %Y' /c/d/a; stat -c '%i' /c/d/a /c/d/b | uniq | wc -l; \
                 readlink /c/l; stat -c 'dir %Y' /c/d; stat -c 'root %a' /c; ls /c/d/e | wc -l; cat /c/d/e/300";
    let found = said(&step(&boxyard, 1, "id=files", looks));
    for line in [&sum, "4751 7:8 2 981173106", " 1\n", "/etc/passwd", "dir 981173106", "root 1777", " 300\n"] {
        assert!(found.contains(line), "{line}: {found}");
    }
    // It came once; who has it brings nothing, and stores only what it changes.
    let brought =
        wait_until("the worker to tell", 30, || Some(moved(&boxyard, &ids[1], "in")).filter(|bytes| *bytes > 0));
    assert!((3_000_000..3_010_000).contains(&brought), "{brought}");
    let changes = "echo two > /c/d/a2; rm /c/d/e/300; grep -q root /c/l; cat /c/d/e/299";
    step(&boxyard, 1, "id=files", changes).ok();
    wait_until("the change to be stored", 30, || cache(&boxyard, "files").filter(|cache| cache["worker_id"] == ids[1]));
    let found = said(&step(&boxyard, 0, "id=files", "cat /c/d/a2; ls /c/d/e | wc -l"));
    assert!(found.contains("two") && found.contains(" 299\n"), "{found}");
    let sent =
        wait_until("the worker to tell", 30, || Some(moved(&boxyard, &ids[1], "out")).filter(|bytes| *bytes > 0));
    assert!(sent < 2_000, "only what is new: {sent}");
    let back = wait_until("the worker to tell", 30, || Some(moved(&boxyard, &ids[0], "in")).filter(|bytes| *bytes > 0));
    assert!(back < 2_000, "only what is new: {back}");
    assert_eq!(moved(&boxyard, &ids[1], "in"), brought, "a second step on the same worker costs nothing");

    // Two steps at once, each on its worker: what both wrote is there, of one path what the last one wrote.
    let writes = |name: &str| format!("echo {name} > /c/{name}; echo {name} > /c/both; sleep 3; ls /c");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| step(&boxyard, 1, "id=files", &writes("right")).ok().to_owned());
        step(&boxyard, 0, "id=files", &writes("left")).ok();
        other.join().expect("built");
    });
    let both = || cache(&boxyard, "files").filter(|cache| cache["files"] == 306);
    wait_until("both to be stored", 30, both);
    for worker in [0, 1] {
        let found = said(&step(&boxyard, worker, "id=files", "cat /c/left /c/right /c/both && sha256sum /c/big"));
        assert!(found.contains("left") && found.contains("right") && found.contains(&sum), "{worker}: {found}");
    }
    boxyard.stop();
}

/// The keys and sizes that a prune names.
fn pruned(boxyard: &Boxyard, args: &[&str]) -> Output {
    boxyard.boxyard(&[&["cache", "prune", "-f"], args].concat())
}

#[test]
fn caches_are_listed_exported_imported_and_pruned() {
    let (boxyard, ids) = farm(2, &[]);
    step(&boxyard, 0, "id=/root/.npm", FILLS).ok();
    step(&boxyard, 0, "id=own,sharing=private", "echo mine > /c/mine").ok();
    wait_until("both to be stored", 30, || cache(&boxyard, "/root/.npm").and(cache(&boxyard, "own")));
    let listed = boxyard.boxyard(&["cache", "ls", "--format", "{{.ID}} {{.Sharing}} {{.Files}} {{.Workers}}"]);
    listed.says(&format!("/root/.npm shared 303 {}", ids[0])).says(&format!("own private 1 {}", ids[0]));
    assert_eq!(boxyard.boxyard(&["cache", "ls", "-q", "--filter", "sharing=private"]).lines().len(), 1);
    assert_eq!(boxyard.boxyard(&["cache", "ls", "-q", "--filter", "unused-for=1h"]).lines().len(), 0);

    // A cache goes over a tar into another one, with all that a tar can say.
    let tar = boxyard.work_dir().join("cache.tar");
    let tar = tar.to_str().expect("a path");
    boxyard.boxyard(&["cache", "export", "-o", tar, "/root/.npm"]).ok();
    boxyard.boxyard(&["cache", "import", "copy", tar]).ok();
    let looks = "stat -c '%a %u:%g %h %Y' /c/d/a; stat -c 'root %a' /c; readlink /c/l; ls /c/d/e | wc -l";
    let found = said(&step(&boxyard, 1, "id=copy", looks));
    for line in ["4751 7:8 2 981173106", "root 1777", "/etc/passwd", " 300\n"] {
        assert!(found.contains(line), "{line}: {found}");
    }
    // Every name is one that a cache may have.
    for name in ["import", "prune", "content"] {
        boxyard.boxyard(&["cache", "import", name, tar]).ok();
        let shown = Client::new(boxyard.socket()).get_json(&format!("/boxyard/v1/caches/{name}"));
        assert_eq!(shown["id"], name, "{shown}");
        boxyard.boxyard(&["cache", "export", "-o", tar, name]).ok();
        pruned(&boxyard, &[name]).says(&format!(" {name}\n"));
    }
    boxyard.boxyard(&["cache", "export", "-o", tar, "nosuch"]).fails(1, "no such cache: nosuch");
    for (hostile, why) in
        [(&[("../x", "")][..], "invalid path"), (&[("l", "/etc"), ("l/x", "")], "which is not a folder")]
    {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, link) in hostile {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(if link.is_empty() { tar::EntryType::Regular } else { tar::EntryType::Symlink });
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, &b""[..]).expect("appended");
        }
        let path = boxyard.work_dir().join("hostile.tar");
        fs::write(&path, tar.into_inner().expect("ended")).expect("written");
        let imported = boxyard.boxyard(&["cache", "import", "bad", path.to_str().expect("a path")]);
        imported.fails(1, why);
    }
    assert!(cache(&boxyard, "bad").is_none());

    // BuildKit's clients see them; what was used lately is kept unless it is named.
    let usage = Client::new(boxyard.socket()).get_json("/system/df");
    let kinds = usage["BuildCache"].as_array().expect("records").iter().filter(|row| row["Type"] == "exec.cachemount");
    assert_eq!(kinds.count(), 3, "{usage}");
    pruned(&boxyard, &[]).says("Total: 0B");
    pruned(&boxyard, &["--dry-run", "copy"]).says("copy").says("Total that would be reclaimed: 3.");
    assert!(cache(&boxyard, "copy").is_some());
    pruned(&boxyard, &["nosuch"]).fails(1, "no such cache: nosuch");
    pruned(&boxyard, &["copy"]).says("Total: 3.");
    assert!(cache(&boxyard, "copy").is_none());
    let found = said(&step(&boxyard, 1, "id=copy", "ls -A /c | wc -l"));
    assert!(found.contains(" 0\n"), "its copy has gone, too: {found}");
    boxyard.docker(&["builder", "prune", "-f", "--filter", "type=exec.cachemount"]).says("Total reclaimed space: 3.");
    wait_until("none to be left", 30, || boxyard.boxyard(&["cache", "ls", "-q"]).lines().is_empty().then_some(()));
    boxyard.stop();
}

/// Bytes of what the one machine keeps, and of what of it is in use.
fn on_machine(boxyard: &Boxyard) -> (u64, u64) {
    let usage = Client::new(boxyard.socket()).get_json("/boxyard/v1/df");
    let kinds = usage["machines"][0]["kinds"].as_array().expect("kinds");
    let sum = |name: &str| kinds.iter().map(|kind| kind[name].as_u64().expect("bytes")).sum();
    (sum("bytes"), sum("in_use_bytes"))
}

#[test]
fn a_machines_cap_counts_the_caches_of_all_its_workers_and_what_went_comes_again() {
    const CAP: u64 = 7_000_000;
    let (boxyard, _) = farm(2, &[&format!("--worker-cache-bytes={CAP}")]);
    for number in 1..=5 {
        let fill = format!("head -c 1500000 /dev/urandom > /c/big; echo {number} > /c/number");
        step(&boxyard, number % 2, &format!("id=c{number}"), &fill).ok();
        // It goes only when it is stored.
        wait_until("the cache to be stored", 30, || cache(&boxyard, &format!("c{number}")));
    }
    wait_until("the machine to be under its cap", 30, || (on_machine(&boxyard).0 <= CAP).then_some(()));
    let copies = |id: &str| cache(&boxyard, id).expect("stored")["workers"].as_array().expect("a list").len();
    assert_eq!((copies("c1"), copies("c5")), (0, 1), "the one used longest ago went");
    let found = said(&step(&boxyard, 0, "id=c1", "cat /c/number; wc -c < /c/big"));
    assert!(found.contains(" 1\n") && found.contains("1500000"), "{found}");
    wait_until("the machine to be under its cap again", 30, || (on_machine(&boxyard).0 <= CAP).then_some(()));
    boxyard.stop();
}

#[test]
fn clients_files_on_a_worker_go_for_its_cap() {
    const CAP: u64 = 7_000_000;
    let (boxyard, _) = farm(1, &[&format!("--worker-cache-bytes={CAP}")]);
    let build = |number: usize, option: &str| {
        let context = boxyard.work_dir().join(format!("files{number}"));
        fs::create_dir_all(&context).expect("a folder");
        let line = format!("FROM busybox\nCOPY big /big\nRUN echo {number}\n");
        fs::write(context.join("Dockerfile"), line).expect("written");
        // No two of them share a layer.
        fs::write(context.join("big"), vec![number as u8; 3_000_000]).expect("written");
        let tag = format!("files:{number}");
        boxyard.boxyard(&["build", option, "-t", &tag, context.to_str().expect("a path")]).ok();
    };
    // Either builder; three of them are past the cap.
    for (number, option) in
        ["--pull=false", "--classic", "--pull=false", "--classic", "--pull=false"].iter().enumerate()
    {
        build(number, option);
    }
    wait_until("the machine to be under its cap", 30, || (on_machine(&boxyard).0 <= CAP).then_some(()));
    build(0, "--pull=false");
    boxyard.docker(&["run", "--rm", "files:0", "wc", "-c", "/big"]).says("3000000");
    boxyard.stop();
}

#[test]
fn what_is_kept_is_shown_and_why() {
    let (boxyard, ids) = farm(1, &[]);
    let context = boxyard.work_dir().join("why");
    fs::create_dir_all(&context).expect("a folder");
    let run = "RUN --mount=type=cache,id=why,target=/c echo x > /c/x; head -c 100000 /dev/urandom > /made";
    fs::write(context.join("Dockerfile"), format!("FROM busybox\n\n{run}\n")).expect("written");
    boxyard.boxyard(&["build", "-t", "why:1", context.to_str().expect("a path")]).ok();
    wait_until("the cache to be stored", 30, || cache(&boxyard, "why"));
    let usage = Client::new(boxyard.socket()).get_json("/boxyard/v1/df");
    let kinds = usage["store"]["kinds"].as_array().expect("kinds");
    let bytes =
        |kind: &str| kinds.iter().find(|row| row["kind"] == kind).expect(kind)["bytes"].as_u64().expect("bytes");
    let all: u64 = kinds.iter().map(|kind| kind["bytes"].as_u64().expect("bytes")).sum();
    assert_eq!(Some(all), usage["store"]["bytes"].as_u64(), "each blob counts once: {usage}");
    assert!(bytes("images") > 1_000_000 && bytes("cache-mounts") > 0 && bytes("contexts") > 0, "{usage}");
    let docker = Client::new(boxyard.socket()).get_json("/system/df");
    assert_eq!(docker["BuilderSize"].as_u64(), Some(bytes("build-cache") + bytes("cache-mounts")), "{usage}");
    let shown = boxyard.boxyard(&["df"]);
    shown.says("LAYER STORE").says("cache-mounts").says(&format!("build-worker {}", ids[0])).says("layers");

    let image = boxyard.docker(&["inspect", "-f", "{{.Id}} {{index .RootFS.Layers 1}}", "why:1"]);
    let (image, layer) = image.ok().trim().split_once(' ').expect("two digests");
    let why = |digest: &str| boxyard.boxyard(&["why-kept", digest]);
    why(&layer[..20]).says("image ").says("why:1").says("step ").says(", Dockerfile:3").says("unpacked on");
    why(image).says("config of why:1");
    boxyard.docker(&["create", "--name", "stands", "why:1"]).ok();
    why(image).says("container ").says("stands (created)");
    why(layer).says("stands (created)");
    boxyard.docker(&["rm", "stands"]).ok();
    boxyard.docker(&["rmi", "why:1"]).ok();
    let kept = why(layer);
    kept.says("step ");
    assert!(!kept.stdout.contains("image "), "{kept}");
    why("nothex").fails(1, "invalid digest: nothex");
    why("sha256:0123456789ab").fails(1, "no blob, layer or image is called sha256:0123456789ab");
    boxyard.stop();
}
