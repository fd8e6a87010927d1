//! `rolecall health`, as a container asks.

use std::{net::TcpListener, thread};

use crate::{bench::Bench, office::CONFIG};

#[tokio::test]
async fn a_server_that_is_ready_is_healthy_and_one_that_is_gone_is_not() {
    let bench = Bench::new();
    bench.furnish().await;
    let (running, base) = bench.serve().await;
    let port = base.rsplit(':').next().unwrap();
    for url in [base.clone(), format!("http://localhost:{port}/")] {
        let healthy = bench.run(&["health", "--url", &url]).await.expect(0);
        assert_eq!(healthy.out, "ready\n");
    }

    // The address that the settings bind, also where that is every address.
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let mut command = bench.command(&[&["health"][..], &CONFIG].concat());
        command.env("ROLECALL_SERVER__LISTEN", format!("{listen}:{port}"));
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }

    running.terminate().await;
    let gone = bench.run(&["health", "--url", &base]).await.expect(1);
    gone.says(&["nobody answers", "rolecall serve"]);
}

#[tokio::test]
async fn what_cannot_be_asked_says_why() {
    let bench = Bench::new();
    bench.furnish().await;
    let free_port = bench.run(&[&["health"][..], &CONFIG].concat()).await;
    free_port.expect(1).says(&["--url"]);
    let tls = bench.run(&["health", "--url", "https://127.0.0.1:1"]).await;
    tls.expect(1).says(&["plain http"]);

    // Somebody answers, but not in HTTP; or says no.
    for (answer, words) in [
        ("220 mail.example.org ESMTP\r\n", "no HTTP server"),
        ("", "no HTTP server"),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "not ready (503)",
        ),
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answering = thread::spawn(move || {
            use std::io::{Read, Write};

            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        bench
            .run(&["health", "--url", &url])
            .await
            .expect(1)
            .says(&[words]);
        answering.join().unwrap();
    }
}
