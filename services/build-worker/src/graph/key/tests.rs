//! An input that matters changes the key, one that does not leaves it.

use proptest::prelude::*;
use proto::step_definition::Operation;

use super::*;

type Definition = proto::StepDefinition;

fn text() -> impl Strategy<Value = String> {
    "[ab=/ \"\\[,]{0,3}"
}

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(text(), 0..3)
}

fn layers() -> impl Strategy<Value = Vec<proto::Layer>> {
    let layer = |diff_id: String| proto::Layer { diff_id, ..Default::default() };
    proptest::collection::vec("[ab]{1,2}".prop_map(layer), 0..3)
}

fn mounts() -> impl Strategy<Value = Vec<proto::StepMount>> {
    let kind = proptest::sample::select(vec!["bind", "cache", "tmpfs", "secret", "ssh"]);
    let mount = (kind, text(), any::<bool>(), text(), text(), 0..3u32).prop_map(
        |(kind, target, readonly, id, sharing, mode)| proto::StepMount {
            r#type: kind.to_owned(),
            target,
            readonly,
            id,
            sharing,
            mode,
            ..Default::default()
        },
    );
    proptest::collection::vec(mount, 0..3)
}

fn run() -> impl Strategy<Value = Operation> {
    (words(), words(), text(), text(), mounts(), text(), words()).prop_map(
        |(args, env, cwd, user, mounts, network, extra_hosts)| {
            let run = proto::RunOperation { args, env, cwd, user, mounts, network, extra_hosts, ..Default::default() };
            Operation::Run(run)
        },
    )
}

fn copy() -> impl Strategy<Value = Operation> {
    (text(), text(), text(), words(), any::<[bool; 3]>()).prop_map(
        |(destination, chown, chmod, excludes, [parents, link, unpack])| {
            let sources = vec![proto::CopySource { unpack, ..Default::default() }];
            let copy = proto::CopyOperation {
                sources,
                destination,
                chown,
                chmod,
                excludes,
                parents,
                link,
                ..Default::default()
            };
            Operation::Copy(copy)
        },
    )
}

fn folder() -> impl Strategy<Value = Operation> {
    (text(), text()).prop_map(|(path, user)| Operation::Folder(proto::FolderOperation { path, user }))
}

fn definition() -> impl Strategy<Value = Definition> {
    (layers(), text(), prop_oneof![run(), copy(), folder()], proptest::option::of(0..3i64)).prop_map(
        |(parent, platform, operation, epoch)| Definition {
            parent,
            platform,
            operation: Some(operation),
            has_epoch: epoch.is_some(),
            source_date_epoch: epoch.unwrap_or(0),
            ..Default::default()
        },
    )
}

fn inputs() -> impl Strategy<Value = Inputs> {
    let file = (text(), "[ab]").prop_map(|(name, digest)| FileInput { name, digest });
    proptest::collection::vec(file, 0..3).prop_map(|files| Inputs { files, ..Default::default() })
}

fn run_of(definition: &mut Definition) -> &mut proto::RunOperation {
    match definition.operation.get_or_insert_with(|| Operation::Run(Default::default())) {
        Operation::Run(run) => run,
        operation => {
            *operation = Operation::Run(Default::default());
            let Operation::Run(run) = operation else { unreachable!("it was just set") };
            run
        }
    }
}

/// What a step's result does not depend on: names of things, places, limits, and who made a layer.
fn with_noise(definition: &Definition, noise: &str, number: i64) -> Definition {
    let mut other = definition.clone();
    other.description = noise.to_owned();
    for layer in &mut other.parent {
        layer.content_bytes = number.unsigned_abs();
        layer.blob = Some(proto::Descriptor { digest: noise.to_owned(), ..Default::default() });
    }
    let tree = proto::step_input::From::Tree(proto::Descriptor { digest: noise.to_owned(), ..Default::default() });
    let from = Some(proto::StepInput { from: Some(tree) });
    match &mut other.operation {
        Some(Operation::Run(run)) => {
            run.resources = Some(proto::Resources { memory_bytes: number, ..Default::default() });
            run.mounts.iter_mut().for_each(|mount| mount.from.clone_from(&from));
        }
        // How files are called where they come from does not count: they count by what they are.
        Some(Operation::Copy(copy)) => copy.sources.iter_mut().for_each(|source| {
            source.from.clone_from(&from);
            source.paths = vec![noise.to_owned()];
        }),
        _ => {}
    }
    if !other.has_epoch {
        other.source_date_epoch = number;
    }
    other
}

/// A change of a definition, and how it is called.
type Change<T> = (&'static str, fn(&mut T));

/// The keys of a definition after each change: none is like another, nor like that without a change.
fn all_differ<T>(what: &str, base: &T, changes: &[Change<T>], key: impl Fn(&T) -> String)
where
    T: Clone,
{
    let mut keys = vec![("nothing", key(base))];
    for (name, change) in changes {
        let mut changed = base.clone();
        change(&mut changed);
        let key = key(&changed);
        if let Some((other, _)) = keys.iter().find(|(_, known)| *known == key) {
            panic!("{what}: {name} has the key of {other}");
        }
        keys.push((name, key));
    }
}

fn key_of(operation: Operation) -> String {
    let definition =
        Definition { operation: Some(operation), platform: "linux/amd64".to_owned(), ..Default::default() };
    of(&definition, &Inputs::default())
}

#[test]
fn every_field_of_every_kind_of_mount_counts() {
    for kind in ["bind", "cache", "tmpfs", "secret", "ssh"] {
        let mount = proto::StepMount { r#type: kind.to_owned(), target: "/t".to_owned(), ..Default::default() };
        let changes: &[Change<proto::StepMount>] = &[
            ("type", |mount| mount.r#type.push('x')),
            ("target", |mount| mount.target.push('x')),
            ("readonly", |mount| mount.readonly = true),
            ("id", |mount| mount.id.push('x')),
            ("sharing", |mount| mount.sharing.push_str("locked")),
            ("mode", |mount| mount.mode = 0o700),
            ("uid", |mount| mount.uid = 1),
            ("gid", |mount| mount.gid = 1),
            ("size", |mount| mount.size_bytes = 1),
            ("required", |mount| mount.required = true),
            ("env", |mount| mount.env.push('x')),
        ];
        all_differ(kind, &mount, changes, |mount| {
            key_of(Operation::Run(proto::RunOperation { mounts: vec![mount.clone()], ..Default::default() }))
        });
    }
}

#[test]
fn every_flag_of_a_copy_counts() {
    let sources = vec![proto::CopySource::default()];
    let copy = proto::CopyOperation { sources, destination: "/d".to_owned(), ..Default::default() };
    let changes: &[Change<proto::CopyOperation>] = &[
        ("destination", |copy| copy.destination.push('/')),
        ("chown", |copy| copy.chown.push('1')),
        ("chmod", |copy| copy.chmod.push('1')),
        ("exclude", |copy| copy.excludes.push("1".to_owned())),
        ("two excludes", |copy| copy.excludes.extend(["1".to_owned(), "2".to_owned()])),
        ("parents", |copy| copy.parents = true),
        ("link", |copy| copy.link = true),
        ("cwd", |copy| copy.cwd.push('/')),
        ("unpack", |copy| copy.sources[0].unpack = true),
        ("a source more", |copy| copy.sources.push(proto::CopySource::default())),
    ];
    all_differ("COPY", &copy, changes, |copy| key_of(Operation::Copy(copy.clone())));
}

#[test]
fn every_option_of_a_command_counts() {
    let changes: &[Change<proto::RunOperation>] = &[
        ("args", |run| run.args.push("x".to_owned())),
        ("env", |run| run.env.push("x=".to_owned())),
        ("cwd", |run| run.cwd.push('x')),
        ("user", |run| run.user.push('x')),
        ("no network", |run| run.network.push_str("none")),
        ("the machine's network", |run| run.network.push_str("host")),
        ("security", |run| run.security.push_str("insecure")),
        ("hosts", |run| run.extra_hosts.push("x:1".to_owned())),
        ("ulimits", |run| run.ulimits.push("nofile=1".to_owned())),
        ("scripts", |run| run.scripts.push(proto::InlineFile::default())),
    ];
    all_differ("RUN", &proto::RunOperation::default(), changes, |run| key_of(Operation::Run(run.clone())));
    let folder = proto::FolderOperation { path: "/a".to_owned(), user: String::new() };
    let changes: &[Change<proto::FolderOperation>] =
        &[("path", |folder| folder.path.push('x')), ("user", |folder| folder.user.push('x'))];
    all_differ("WORKDIR", &folder, changes, |folder| key_of(Operation::Folder(folder.clone())));
    let definition = Definition::default();
    let changes: &[Change<Definition>] = &[
        ("platform", |definition| definition.platform.push_str("linux/arm64")),
        ("variant", |definition| definition.platform.push_str("linux/arm64/v8")),
        ("an epoch of 0", |definition| definition.has_epoch = true),
        ("an operation", |definition| definition.operation = Some(Operation::Run(Default::default()))),
        ("another operation", |definition| definition.operation = Some(Operation::Copy(Default::default()))),
    ];
    all_differ("a step", &definition, changes, |definition| of(definition, &Inputs::default()));
}

proptest! {
    #[test]
    fn keys_are_alike_when_and_only_when_the_inputs_are(
        one in (definition(), inputs()), other in (definition(), inputs()), noise in text(), number in 0..9i64
    ) {
        prop_assert_eq!(one == other, of(&one.0, &one.1) == of(&other.0, &other.1));
        prop_assert_eq!(of(&one.0, &one.1), of(&with_noise(&one.0, &noise, number), &one.1));
    }

    /// Alike but for one part: random definitions hardly ever are.
    #[test]
    fn each_part_counts(base in definition(), inputs in inputs(), more in "[ab]{1,2}", which in 0..24usize) {
        let before = of(&base, &inputs);
        let (mut changed, mut files) = (base.clone(), inputs.clone());
        // Where the base is no RUN, it is compared as one with nothing in it.
        let before = if which < 14 { run_of(&mut changed); of(&changed, &inputs) } else { before };
        let mount = proto::StepMount { r#type: "cache".to_owned(), ..Default::default() };
        match which {
            0 => run_of(&mut changed).args.push(more),
            1 => run_of(&mut changed).env.push(format!("{more}=1")),
            2 => run_of(&mut changed).cwd.push_str(&more),
            3 => run_of(&mut changed).user.push_str(&more),
            4 => run_of(&mut changed).network.push_str(&more),
            5 => run_of(&mut changed).security.push_str(&more),
            6 => run_of(&mut changed).extra_hosts.push(more),
            7 => run_of(&mut changed).ulimits.push(more),
            8 => run_of(&mut changed).scripts.push(proto::InlineFile { name: more, content: Vec::new() }),
            9 => run_of(&mut changed).mounts.push(mount),
            10 => run_of(&mut changed).mounts.push(proto::StepMount { id: more, ..mount }),
            11 => run_of(&mut changed).mounts.push(proto::StepMount { env: more, ..mount }),
            12 => run_of(&mut changed).mounts.push(proto::StepMount { uid: 1, gid: 2, ..mount }),
            13 => run_of(&mut changed).mounts.push(proto::StepMount { required: true, size_bytes: 1, ..mount }),
            14 => changed.platform.push_str(&more),
            15 => changed.parent.push(proto::Layer { diff_id: more, ..Default::default() }),
            16 => changed.parent.insert(0, proto::Layer { diff_id: more, ..Default::default() }),
            17 => {
                changed.source_date_epoch += i64::from(changed.has_epoch);
                changed.has_epoch = true;
            }
            18 => files.files.push(FileInput { name: more.clone(), digest: more }),
            19 => files.files.insert(0, FileInput { name: String::new(), digest: more }),
            _ => match changed.operation.as_mut() {
                Some(Operation::Run(run)) => run.args.insert(0, more),
                Some(Operation::Copy(copy)) => match which {
                    20 => copy.destination.push_str(&more),
                    21 => copy.sources[0].unpack = !copy.sources[0].unpack,
                    22 => copy.cwd.push_str(&more),
                    _ => copy.excludes.push(more),
                },
                Some(Operation::Folder(folder)) => folder.path.push_str(&more),
                None => changed.platform.push_str(&more),
            },
        }
        prop_assert_ne!(before, of(&changed, &files));
    }

    #[test]
    fn proxies_do_not_count_and_all_else_of_the_environment_does(base in run(), value in "[ab]{1,3}", other in "[cd]{1,3}") {
        let uncounted = ["HTTP_PROXY", "no_proxy"].map(str::to_owned).into();
        let inputs = Inputs { uncounted, ..Default::default() };
        let with = |name: &str, value: &str| {
            let mut definition = Definition { operation: Some(base.clone()), ..Default::default() };
            run_of(&mut definition).env.push(format!("{name}={value}"));
            of(&definition, &inputs)
        };
        prop_assert_eq!(with("HTTP_PROXY", &value), with("no_proxy", &other));
        prop_assert_ne!(with("PROXY", &value), with("PROXY", &other));
    }

    /// Whose files they are counts by what they are, not by which pattern found them: but what is unpacked does.
    #[test]
    fn orders_count(one in "[ab]{1,2}", other in "[cd]{1,2}") {
        let inputs = |names: [&str; 2]| Inputs {
            files: names.map(|name| FileInput { name: name.to_owned(), digest: "d".to_owned() }).to_vec(),
            ..Default::default()
        };
        let definition = Definition { operation: Some(Operation::Copy(Default::default())), ..Default::default() };
        prop_assert_ne!(of(&definition, &inputs([&one, &other])), of(&definition, &inputs([&other, &one])));
    }
}
