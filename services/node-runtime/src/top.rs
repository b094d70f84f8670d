//! `docker top`: the machine's `ps`, its rows kept that belong to the container.

use std::collections::HashSet;
use std::process::Stdio;

use bus::Error;
use proto::{TopReply, TopRequest, TopRow};

use crate::node::Node;

impl Node {
    pub async fn top(&self, request: TopRequest) -> Result<TopReply, Error> {
        let container = self.container(&request.id)?;
        if !container.is_running() {
            return Err(Error::conflict(format!("container {} is not running", request.id)));
        }
        let pids: HashSet<i32> =
            runtime::cgroup::Cgroup::new(&self.cgroup(&request.id)).processes().into_iter().collect();
        let arguments = if request.ps_args.is_empty() { "-ef" } else { &request.ps_args };
        let output = tokio::process::Command::new("ps")
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|e| Error::internal(format!("error running ps: {e}")))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Error::invalid(format!("error running ps: {}", why.trim())));
        }
        rows(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

fn rows(text: &str, pids: &HashSet<i32>) -> Result<TopReply, Error> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let at = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let own = |fields: &[&str]| fields.get(at).and_then(|pid| pid.parse().ok()).is_some_and(|pid| pids.contains(&pid));
    let processes = lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| own(fields))
        .map(|fields| {
            // The last column, a command line, has blanks inside.
            let cut = fields.len().min(titles.len().saturating_sub(1));
            let mut row: Vec<String> = fields[..cut].iter().map(|field| (*field).to_owned()).collect();
            row.push(fields[cut..].join(" "));
            TopRow { fields: row }
        })
        .collect();
    Ok(TopReply { titles, processes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_rows_and_commands_whole() {
        let text = "UID PID CMD\nroot 7 sh -c a b\nroot 8 other\n";
        let reply = rows(text, &HashSet::from([7])).expect("rows");
        assert_eq!(reply.titles, ["UID", "PID", "CMD"]);
        assert_eq!(reply.processes.len(), 1);
        assert_eq!(reply.processes[0].fields, ["root", "7", "sh -c a b"]);
        assert!(rows("UID CMD\n", &HashSet::new()).is_err());
    }
}
