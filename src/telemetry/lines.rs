//! Lines on their way to standard error: gathered in memory, written by a thread of their own.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// For how long lines are gathered behind the first one.
const GATHERED_FOR: Duration = Duration::from_millis(10);

/// How many bytes of lines may wait, some ten thousand lines.
const MOST_WAITING: usize = 4 << 20;

/// Lines on their way to `output`, and who sees to it that they arrive.
pub(super) fn gather(output: impl Write + Send + 'static) -> (LogLines, LogGuard) {
    let lines = LogLines(Arc::default());
    let written = lines.clone();
    let writing = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || written.keep_writing(output))
        .expect("a process that starts can have a thread");
    let guard = LogGuard {
        lines: lines.clone(),
        writing: Some(writing),
    };
    (lines, guard)
}

/// Writes what is left when dropped.
pub struct LogGuard {
    lines: LogLines,
    writing: Option<JoinHandle<()>>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.waiting().is_last = true;
        self.lines.0.changed.notify_one();
        if let Some(writing) = self.writing.take() {
            // A log that broke off has nobody left to tell.
            let _ = writing.join();
        }
    }
}

/// Where lines wait until they are written.
#[derive(Clone)]
pub(super) struct LogLines(Arc<LogQueue>);

#[derive(Default)]
struct LogQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    is_last: bool,
}

impl LogLines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let waiting = &self.0.waiting;
        // Whole lines are added at once: what a panic left behind is whole, too.
        waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_writing(&self, mut output: impl Write) {
        let mut writing = Vec::new();
        loop {
            let is_idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.is_last;
            let changed = &self.0.changed;
            let waiting = changed
                .wait_while(self.waiting(), is_idle)
                .unwrap_or_else(PoisonError::into_inner);
            let (mut waiting, _) = changed
                .wait_timeout_while(waiting, GATHERED_FOR, |waiting| !waiting.is_last)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut waiting.bytes, &mut writing);
            let is_last = waiting.is_last;
            drop(waiting);
            // Standard error that cannot be written to is no reason to stop serving.
            let _ = output.write_all(&writing).and_then(|()| output.flush());
            writing.clear();
            if is_last {
                return;
            }
        }
    }
}

impl Write for &LogLines {
    /// Takes a whole line, or drops it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        let is_first = waiting.bytes.is_empty();
        if waiting.bytes.len() + line.len() <= MOST_WAITING {
            waiting.bytes.extend_from_slice(line);
        }
        drop(waiting);
        if is_first {
            self.0.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_is_whole_in_order_and_there_when_the_guard_is_gone() {
        const LINES: usize = 1_000;
        let paper = Paper::default();
        let (lines, guard) = gather(paper.clone());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let lines = &lines;
                scope.spawn(move || {
                    for number in 0..LINES {
                        let line = format!("{writer} {number}\n");
                        lines.make_writer().write_all(line.as_bytes()).unwrap();
                    }
                });
            }
        });
        drop(guard);
        let written = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        for writer in 0..4 {
            let prefix = format!("{writer} ");
            let numbers: Vec<usize> = written
                .lines()
                .filter_map(|line| line.strip_prefix(&prefix)?.parse().ok())
                .collect();
            assert!(numbers.into_iter().eq(0..LINES), "of writer {writer}");
        }
    }

    /// Writes nothing until it may.
    struct Stuck(mpsc::Receiver<()>, Paper);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_is_stuck_costs_lines_and_holds_nobody_up() {
        let (may_go_on, stuck) = mpsc::channel();
        let paper = Paper::default();
        let (lines, guard) = gather(Stuck(stuck, paper.clone()));
        let line = [b"x".repeat(1023).as_slice(), b"\n"].concat();
        for _ in 0..4 * MOST_WAITING / line.len() {
            lines.make_writer().write_all(&line).unwrap();
        }
        drop(may_go_on);
        drop(guard);
        let written = paper.0.lock().unwrap();
        // What was being written, and what was waiting behind it.
        assert!(written.len() <= 2 * MOST_WAITING);
        assert!(written.chunks(line.len()).all(|each| each == line));
    }
}
