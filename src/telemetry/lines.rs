//! Collects log lines in memory and writes them to standard error from its own thread.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How long lines are collected after the first one.
const GATHERED_FOR: Duration = Duration::from_millis(10);

/// Maximum bytes that wait in the queue: about ten thousand lines.
const MOST_WAITING: usize = 4 << 20;

/// Starts a thread that writes lines to `output`. Returns the queue and the guard that flushes it.
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

/// Writes the remaining lines when it is dropped.
pub struct LogGuard {
    lines: LogLines,
    writing: Option<JoinHandle<()>>,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.lines.waiting().is_last = true;
        self.lines.0.changed.notify_one();
        if let Some(writing) = self.writing.take() {
            // If the writer thread panicked, there is nowhere to report it.
            let _ = writing.join();
        }
    }
}

/// The queue of lines that wait to be written. Clones share it.
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
        // A line is added in one step, so the buffer holds whole lines even after a panic.
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
            // Wait for more lines, so that one write takes them all.
            let (mut waiting, _) = changed
                .wait_timeout_while(waiting, GATHERED_FOR, |waiting| !waiting.is_last)
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut waiting.bytes, &mut writing);
            let is_last = waiting.is_last;
            drop(waiting);
            // A failed write to standard error must not stop the service.
            let _ = output.write_all(&writing).and_then(|()| output.flush());
            writing.clear();
            if is_last {
                return;
            }
        }
    }
}

impl Write for &LogLines {
    /// Takes the whole line, or drops it if the queue is full.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        let is_first = waiting.bytes.is_empty();
        if waiting.bytes.len() + line.len() <= MOST_WAITING {
            waiting.bytes.extend_from_slice(line);
        }
        drop(waiting);
        // Only the first line wakes the writer, which then collects more lines until a timeout.
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

    /// Stores the bytes that are written to it.
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

    /// Blocks every write until the sender is dropped.
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
        // At most one buffer in the writer and one in the queue.
        assert!(written.len() <= 2 * MOST_WAITING);
        assert!(written.chunks(line.len()).all(|each| each == line));
    }
}
