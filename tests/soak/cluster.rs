//! PostgreSQL servers and a PgBouncer of a test's own: on loopback, in a folder that is gone with the
//! test, run as the user `postgres` where the test is root, since neither runs as root.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A folder for servers, and who runs them.
pub struct Servers {
    folder: TempDir,
    /// User and group; None: whoever runs the test.
    user: Option<(u32, u32)>,
}

impl Servers {
    pub fn new() -> Self {
        let user = rustix::process::geteuid().is_root().then(|| {
            let id = |what| {
                let output = Command::new("id")
                    .args([what, "postgres"])
                    .output()
                    .unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                text.trim()
                    .parse()
                    .expect("this soak test needs the user postgres: apt-get install postgresql")
            };
            (id("-u"), id("-g"))
        });
        let folder = tempfile::tempdir().unwrap();
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        Self { folder, user }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        if let Some((user, group)) = self.user {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        path
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    /// Runs one of PostgreSQL's programs to its end.
    fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = self.command(&postgresql().join(program));
        // Not captured: a server that `pg_ctl` starts would keep the pipe open.
        let log = fs::File::create(self.path(&format!("{program}.log"))).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let status = command.args(arguments).status().unwrap();
        let said = || fs::read_to_string(self.path(&format!("{program}.log")));
        assert!(status.success(), "{program} {arguments:?}: {:?}", said());
    }
}

/// Where PostgreSQL's programs are: the newest that Debian has, or on the path.
fn postgresql() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb").is_file().then_some((version, path))
        })
        .max();
    let (_, path) = newest.expect("this soak test needs initdb: apt-get install postgresql");
    path.join("bin")
}

/// A running PostgreSQL server; stopped when dropped.
pub struct Cluster<'a> {
    servers: &'a Servers,
    name: &'static str,
    port: u16,
}

impl<'a> Cluster<'a> {
    pub fn new(servers: &'a Servers, name: &'static str) -> Self {
        let cluster = Self::at_a_free_port(servers, name);
        let data = cluster.data();
        servers.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync"],
        );
        cluster.start();
        cluster
    }

    /// One that follows this one.
    pub fn standby(&self, name: &'static str) -> Self {
        let standby = Self::at_a_free_port(self.servers, name);
        let (port, data) = (self.port.to_string(), standby.data());
        let from = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let to = ["-D", &data, "-R", "-X", "stream", "-c", "fast"];
        self.servers
            .run("pg_basebackup", &[&from[..], &to].concat());
        standby.start();
        standby
    }

    fn at_a_free_port(servers: &'a Servers, name: &'static str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self {
            servers,
            name,
            port,
        }
    }

    fn data(&self) -> String {
        self.servers.path(self.name).display().to_string()
    }

    pub fn start(&self) {
        let settings = format!(
            "-c port={} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
             -c max_wal_senders=4 -c wal_level=replica",
            self.port
        );
        let log = format!("{}.server", self.data());
        let (data, log) = (self.data(), log.as_str());
        self.servers.run(
            "pg_ctl",
            &["start", "-w", "-D", &data, "-l", log, "-o", &settings],
        );
    }

    /// As a machine stops that loses its power.
    pub fn stop(&self) {
        self.servers
            .run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate"]);
    }

    pub fn promote(&self) {
        self.servers
            .run("pg_ctl", &["promote", "-w", "-D", &self.data()]);
    }

    /// Has it refuse writes from now on, in open sessions too.
    pub fn set_read_only(&self) {
        self.execute("alter system set default_transaction_read_only = on");
        self.execute("select pg_reload_conf()");
    }

    /// Makes a role that must prove its password; the url it connects with.
    pub fn role_with_password(&self, role: &str, password: &str) -> String {
        self.execute(&format!("create role {role} superuser login"));
        self.set_password(role, password);
        let file = format!("{}/pg_hba.conf", self.name);
        let others = fs::read_to_string(self.servers.path(&file)).unwrap();
        let rule = format!("host all {role} 127.0.0.1/32 scram-sha-256\n{others}");
        self.servers.write(&file, &rule);
        self.execute("select pg_reload_conf()");
        let address = self.address();
        format!("postgres://{role}:{password}@{address}/postgres?sslmode=disable")
    }

    pub fn set_password(&self, role: &str, password: &str) {
        self.execute(&format!("alter role {role} password '{password}'"));
    }

    /// Ends every open connection of this role.
    pub fn end_sessions(&self, role: &str) {
        self.execute(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'"
        ));
    }

    fn execute(&self, statement: &str) {
        let url = self.url();
        self.servers
            .run("psql", &["-X", "-q", "-d", &url, "-c", statement]);
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub fn url(&self) -> String {
        url_at(self.address())
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        let mut stop = self.servers.command(&postgresql().join("pg_ctl"));
        stop.args(["stop", "-D", &self.data(), "-m", "immediate"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It may be stopped already.
        let _ = stop.status();
    }
}

/// The database of whichever server this address leads to.
pub fn url_at(address: SocketAddr) -> String {
    format!("postgres://postgres@{address}/postgres?sslmode=disable")
}

/// A running PgBouncer; stopped when dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl PgBouncer {
    /// With the settings that OPERATIONS.md prints, but for names, ports and how users are known.
    pub fn before(cluster: &Cluster<'_>) -> Self {
        let servers = cluster.servers;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let users = servers.write("userlist.txt", "\"postgres\" \"\"\n");
        let log = servers.path("pgbouncer.log");
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={}\n\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\n\
             auth_file = {}\npool_mode = transaction\ndefault_pool_size = 20\n\
             unix_socket_dir =\nlogfile = {}\n",
            cluster.port,
            users.display(),
            log.display(),
        );
        let settings = servers.write("pgbouncer.ini", &settings);
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = program.iter().map(Path::new).find(|path| path.is_file());
        let program = program.expect("this soak test needs PgBouncer: apt-get install pgbouncer");
        let child = servers
            .command(program)
            .arg("-q")
            .arg(settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, log }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
