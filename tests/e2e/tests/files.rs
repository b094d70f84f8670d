//! The writable layer: cp both ways, diff, export, commit.

use kit::on_both;

on_both! {
    fn diff_names_every_change(engine: &Engine) {
        engine.docker(&["run", "--name", "changed", "busybox", "sh", "-c", "rm /bin/vi; touch /new; echo x >> /etc/passwd; mkdir -p /deep/er"]).ok();
        let mut lines: Vec<String> = engine.docker(&["diff", "changed"]).lines().iter().map(|line| (*line).to_owned()).collect();
        lines.sort();
        assert_eq!(lines, ["A /deep", "A /deep/er", "A /new", "C /bin", "C /etc", "C /etc/passwd", "D /bin/vi"]);
        engine.docker(&["create", "--name", "still", "busybox"]).ok();
        assert_eq!(engine.docker(&["diff", "still"]).ok(), "");
        engine.docker(&["ps", "-as", "-f", "name=changed"]).hides("0B (virtual");
    }

    fn copy_in_and_out(engine: &Engine) {
        engine.docker(&["run", "--name", "box", "busybox", "sh", "-c", "mkdir /dir; echo inner > /dir/file; ln -s dir /link"]).ok();
        engine.write("in/file", "outer");
        engine.shell("docker cp in box:/into && docker cp box:/into/file back && cat back").says("outer");
        engine.shell("docker cp box:/dir . && cat dir/file").says("inner");
        engine.shell("docker cp box:/dir/. flat && cat flat/file").says("inner");
        engine.shell("docker cp -L box:/link - | tar t").says("dir/file");
        engine.shell("docker cp box:/dir - | tar tv").says("dir/file");
        engine.shell("tar -C in -c file | docker cp - box:/dir && docker cp box:/dir/file - | tar xO").says("outer");
        engine.shell("docker cp box:/nosuch .").fails(1, "nosuch");
        engine.shell("docker cp in/file box:/nosuch/place/").fails(1, "no such directory");
        engine.shell("docker cp nosuch:/x .").fails(1, "No such container: nosuch");
        engine.docker(&["run", "-d", "--name", "live", "busybox", "sleep", "60"]).ok();
        engine.shell("docker cp in/file live:/tmp/ && docker exec live cat /tmp/file").says("outer");
        engine.docker(&["rm", "-f", "live"]).ok();
    }

    fn export_is_the_whole_tree(engine: &Engine) {
        engine.docker(&["run", "--name", "whole", "busybox", "sh", "-c", "rm /bin/vi; echo new > /new"]).ok();
        engine.shell("docker export whole > out.tar; tar tf out.tar").says("bin/busybox").says("new").hides("bin/vi\n");
        engine.shell("docker export -o file.tar whole && tar xOf file.tar new").says("new");
        engine.shell("docker import out.tar again && docker run --rm again /bin/cat /new").says("new");
        engine.docker(&["export", "nosuch"]).fails(1, "No such container: nosuch");
    }

    fn commit_keeps_the_change(engine: &Engine) {
        engine.docker(&["run", "--name", "worked", "busybox", "sh", "-c", "echo kept > /kept; rm /bin/vi"]).ok();
        let id = engine.docker(&["commit", "-m", "message", "-a", "author", "-c", "CMD [\"cat\", \"/kept\"]", "-c", "ENV X=y", "worked", "kept:1"]).ok().to_owned();
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        assert_eq!(engine.docker(&["run", "--rm", "kept:1"]).ok(), "kept");
        assert_eq!(engine.docker(&["run", "--rm", "kept:1", "sh", "-c", "echo $X; ls /bin/vi 2>&1"]).code, 1);
        let history = engine.docker(&["history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Comment}}", "kept:1"]);
        assert!(history.lines()[0].starts_with("sh -c echo kept > /kept") && history.lines()[0].ends_with("|message"), "{history}");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.Author}} {{.Comment}}", "kept:1"]).ok(), "author message");
        engine.docker(&["commit", "nosuch"]).fails(1, "No such container: nosuch");
        engine.docker(&["commit", "worked"]).says("sha256:");
        engine.docker(&["images"]).says("<none>");
        engine.docker(&["run", "-d", "--name", "live", "busybox", "sleep", "60"]).ok();
        engine.docker(&["commit", "--pause=false", "live", "live:1"]).says("sha256:");
        engine.docker(&["commit", "live", "live:2"]).says("sha256:");
        assert_eq!(engine.docker(&["inspect", "-f", "{{.State.Status}}", "live"]).ok(), "running");
        engine.docker(&["rm", "-f", "live"]).ok();
    }
}
