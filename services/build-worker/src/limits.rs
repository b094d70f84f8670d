//! Limits of processor and memory that hold for a build as a whole: all its steps on this worker are in one control group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use runtime::bundle::Resources;
use runtime::cgroup::Cgroup;

use crate::failure::Failure;

/// The groups of builds that run steps here.
#[derive(Clone, Debug)]
pub struct Groups {
    instance: String,
    /// In their names: two workers of a machine have a group each for the same build.
    worker_id: String,
    held: Held,
}

/// A build's group; removed with the last of its steps.
#[derive(Debug)]
pub struct Group {
    path: String,
    /// By build, where it has limits and a folder of its own.
    among: Option<(String, Held)>,
}

type Held = Arc<Mutex<HashMap<String, Weak<Group>>>>;

impl Groups {
    /// What an earlier run of the worker left is removed.
    pub fn new(instance: &str, worker_id: &str) -> Self {
        for left in runtime::cgroup::groups_of(instance, &format!("{worker_id}.")) {
            runtime::cgroup::remove(&left);
        }
        Self { instance: instance.to_owned(), worker_id: worker_id.to_owned(), held: Arc::default() }
    }

    /// The group of a build with these limits; a build without limits has none of its own.
    ///
    /// # Errors
    /// What the kernel says to a limit that it does not take.
    pub fn of(&self, build_id: &str, limits: &Resources) -> Result<Arc<Group>, Failure> {
        let limits = of_build(limits);
        if limits == Resources::default() {
            return Ok(Arc::new(Group { path: format!("/boxyard-{}", self.instance), among: None }));
        }
        let mut held = self.held.lock().expect("no holder panics");
        held.retain(|_, group| group.strong_count() > 0);
        if let Some(group) = held.get(build_id).and_then(Weak::upgrade) {
            return Ok(group);
        }
        let path = format!("/boxyard-{}/{}.{build_id}", self.instance, self.worker_id);
        let among = Some((build_id.to_owned(), self.held.clone()));
        if let Err(error) = Cgroup::new(&path).create(&limits) {
            runtime::cgroup::remove(&path);
            return Err(Failure::user(crate::failure::chain(&error)));
        }
        let group = Arc::new(Group { path, among });
        held.insert(build_id.to_owned(), Arc::downgrade(&group));
        Ok(group)
    }
}

impl Group {
    /// Path of a step's group.
    pub fn of_step(&self, id: &str) -> String {
        format!("{}/{id}", self.path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some((build_id, held)) = self.among.take() else { return };
        // Not where the build's next step has made it anew meanwhile.
        let held = held.lock().expect("no holder panics");
        if held.get(&build_id).is_none_or(|group| group.strong_count() == 0) {
            runtime::cgroup::remove(&self.path);
        }
    }
}

/// Whether a build has limits that hold for all its steps together.
pub fn is_limited(resources: &proto::Resources) -> bool {
    of_build(&crate::container::limits(resources)) != Resources::default()
}

/// What a group of groups can hold: the others are for each step.
fn of_build(limits: &Resources) -> Resources {
    // Docker's rule: as much swap as memory unless said otherwise.
    let swap = match limits.memory_swap_bytes {
        0 if limits.memory_bytes > 0 => limits.memory_bytes.saturating_mul(2),
        other => other,
    };
    Resources {
        memory_bytes: limits.memory_bytes,
        memory_swap_bytes: swap,
        nano_cpus: limits.nano_cpus,
        cpu_shares: limits.cpu_shares,
        cpu_period_us: limits.cpu_period_us,
        cpu_quota_us: limits.cpu_quota_us,
        ..Resources::default()
    }
}
