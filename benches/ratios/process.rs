//! Processes: the core that they run on, the resources that they use, and their end.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

use crate::{Outcome, read_file};

/// The role of a core, of those that this process may use.
#[derive(Debug, Clone, Copy)]
pub enum Core {
    Servers,
    Load,
}

/// Runs `work` with this thread, and the processes and threads that it starts, on one core. If only
/// one core is available, or the affinity cannot be set, servers and load share the cores.
pub fn on_core<T>(core: Core, work: impl FnOnce() -> T) -> T {
    let Ok(before) = sched_getaffinity(None) else {
        return work();
    };
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|&each| before.is_set(each));
    let chosen = match core {
        Core::Servers => allowed.next(),
        Core::Load => allowed.nth(1),
    };
    let Some(chosen) = chosen else {
        return work();
    };
    let mut one = CpuSet::new();
    one.set(chosen);
    if sched_setaffinity(None, &one).is_err() {
        return work();
    }
    let done = work();
    if let Err(error) = sched_setaffinity(None, &before) {
        eprintln!("this thread stays on one core: {error}");
    }
    done
}

/// A child process; killed when dropped.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Outcome<Self> {
        let started = command.spawn();
        let named = command.get_program().display();
        Ok(Self(started.map_err(|error| format!("{named}: {error}"))?))
    }

    pub const fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub fn watch(&self) -> Watch {
        Watch(self.0.id())
    }

    /// Sends SIGTERM, as an init system does, and waits until the process has ended.
    pub fn terminate(mut self) -> Outcome<()> {
        let id = Pid::from_child(&self.0);
        kill_process(id, Signal::TERM)?;
        let status = self.0.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("a server ended with {status}").into()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the resource use of a process from /proc.
#[derive(Debug, Clone, Copy)]
pub struct Watch(u32);

impl Watch {
    /// This process.
    pub fn own() -> Self {
        Self(std::process::id())
    }

    fn folder(self) -> PathBuf {
        Path::new("/proc").join(self.0.to_string())
    }

    /// The processor time of the process's running threads; threads that have ended are not
    /// counted.
    pub fn cpu(self) -> Outcome<Duration> {
        let mut used = Duration::ZERO;
        for thread in std::fs::read_dir(self.folder().join("task"))? {
            // The fields are: nanoseconds on a processor, nanoseconds waiting for one, number of
            // timeslices.
            let Ok(stat) = read_file(&thread?.path().join("schedstat")) else {
                continue;
            };
            let stat = String::from_utf8_lossy(&stat);
            let nanos = stat.split(' ').next().unwrap_or_default();
            used += Duration::from_nanos(nanos.parse()?);
        }
        Ok(used)
    }

    /// The anonymous resident memory (`RssAnon`), in bytes.
    pub fn resident(self) -> Outcome<u64> {
        let status = read_file(&self.folder().join("status"))?;
        let kib = String::from_utf8_lossy(&status)
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .and_then(|rest| rest.split_whitespace().next())
            .map(str::parse::<u64>)
            .ok_or("the kernel does not say how much memory is resident")??;
        Ok(kib * 1024)
    }
}

/// The exact processor time that this process has used.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0));
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}
