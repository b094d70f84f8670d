//! The page at `/boxyard/`, in Chromium: it lives without being loaded again, shows hostile text as text, and comes
//! back after its gateway.

use std::process::Stdio;

use kit::{Boxyard, Browser, Client, Registry, Throttle, client, wait_until};

/// The page, live, with a mark that a reload would lose.
fn open(port: u16) -> Browser {
    let browser = Browser::start(1280, 1000);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    assert_eq!(browser.url(), format!("http://127.0.0.1:{port}/boxyard/"), "the root leads a browser to the page");
    browser.wait_for_text("#connection", "that it is live", |text| text == "Live");
    browser.run("window.mark = 'still the same page'");
    browser
}

#[track_caller]
fn is_the_same_page(browser: &Browser) {
    assert_eq!(browser.run("return window.mark"), "still the same page", "it was loaded again");
}

#[test]
fn containers_come_change_and_go() {
    let (boxyard, port) = Boxyard::start_on_port();
    let browser = open(port);
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('#containers tbody tr')].find((row) => row.innerText.includes('{name}'))"
        )
    };
    let state =
        |name: &str| browser.run(&format!("return {}?.querySelector('.badge')?.innerText ?? 'none'", row(name)));
    let wait = |name: &str, wanted: &str| {
        wait_until(&format!("{name} to be shown as {wanted}"), 60, || (state(name) == wanted).then_some(()));
    };
    browser.wait_for_text("#containers", "that it is empty", |text| text.contains("No containers."));
    browser.wait_for_text("#images", "busybox", |text| text.contains("busybox:latest"));
    boxyard.docker(&["create", "--name", "seen", "busybox", "sleep", "600"]).ok();
    wait("seen", "created");
    boxyard.docker(&["start", "seen"]).ok();
    wait("seen", "running");
    browser.wait_for_text("#tiles", "that one runs", |text| text.contains("1 running"));
    boxyard.docker(&["pause", "seen"]).ok();
    wait("seen", "paused");
    boxyard.docker(&["unpause", "seen"]).ok();
    wait("seen", "running");
    boxyard.docker(&["rename", "seen", "called"]).ok();
    wait("called", "running");
    boxyard.docker(&["kill", "called"]).ok();
    wait("called", "exited");
    browser.wait_for_text("#containers", "the exit code", |text| text.contains("code 137"));
    let told = browser.run("return document.querySelector('#news').textContent");
    assert!(told.as_str().is_some_and(|text| text.contains("container called")), "a screen reader hears {told}");
    boxyard.docker(&["rm", "called"]).ok();
    wait("called", "none");
    browser.wait_for_text("#services", "all services", |text| {
        kit::SERVICES.iter().all(|name| text.contains(name.trim_start_matches("boxyard-"))) && !text.contains("gone")
    });
    is_the_same_page(&browser);
    assert_eq!(browser.console(), [] as [String; 0], "the page breaks no rule of its own");
    drop(browser);
    boxyard.stop();
}

#[test]
fn builds_are_shown_at_work_and_hostile_text_is_text() {
    let (boxyard, port) = Boxyard::start_on_port();
    let browser = open(port);
    browser.wait_for_text("#builds", "that there are none", |text| text.contains("No builds"));
    let folder = boxyard.work_dir().join("long");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("Dockerfile"), "FROM busybox\nRUN sleep 600\n").expect("a file");
    let mut build = client(boxyard.socket())
        .args(["build", "-t", "long", "."])
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker starts");
    browser
        .wait_for_text("#builds", "a build at work", |text| text.contains("long:latest") && text.contains("running"));
    browser.wait_for_text("#builds", "the step that it is at", |text| text.contains("Step 2/2 : RUN sleep 600"));
    browser.wait_for_text("#tiles", "a build at work", |text| text.contains("1 at work"));
    build.kill().expect("it runs");
    build.wait().expect("it ends");
    browser.wait_for_text("#builds", "that nobody wants it any more", |text| text.contains("cancelled"));

    let hostile = "<img src=x onerror=window.owned=1><script>window.owned=1</script>";
    let dockerfile = format!("FROM busybox\nRUN exit 7 # {hostile}\n");
    boxyard.feed(&["build", "-t", "broken", "-"], dockerfile.as_bytes()).fails(7, hostile);
    boxyard.docker(&["create", "--name", "hostile", "busybox", "echo", hostile]).ok();
    browser.wait_for_text("#builds", "the text of the failure", |text| text.contains(hostile));
    let title =
        "return [...document.querySelectorAll('#containers td')].some((cell) => cell.title.includes('<script>'))";
    wait_until("the command as a title", 60, || (browser.run(title) == true).then_some(()));
    let made = browser.run("return document.querySelectorAll('main img, main script').length + (window.owned ?? 0)");
    assert_eq!(made, 0, "nothing of it became a part of the page");
    is_the_same_page(&browser);

    // A narrow screen in the dark: all of it fits.
    browser.prefer_dark();
    browser.resize(500, 900);
    let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
    wait_until("the page to fit", 20, || (browser.run(fits) == true).then_some(()));
    assert_eq!(browser.run("return getComputedStyle(document.body).backgroundColor"), "rgb(18, 23, 21)");

    // Another site's page can ask the engine of whoever looks at it; it is not listened to.
    boxyard.docker(&["run", "-d", "--name", "victim", "--stop-signal", "KILL", "busybox", "sleep", "600"]).ok();
    browser.open("data:text/html,<title>elsewhere</title>");
    let attack = format!(
        "return fetch('http://127.0.0.1:{port}/containers/victim/kill', {{method: 'POST', mode: 'no-cors'}}).then((a) => a.type, String)"
    );
    let seen = browser.run(&attack);
    let counted = Client::tcp(port).send("GET", "/boxyard/v1/metrics", "", "").expect("an answer").text();
    assert!(!counted.contains("route=\"/containers/{id}/kill\""), "it got as far as a handler; the page saw {seen}");
    let state = boxyard.docker(&["inspect", "-f", "{{.State.Status}}", "victim"]).ok().to_owned();
    assert_eq!(state, "running", "the page saw {seen}");
    drop(browser);
    boxyard.stop();
}

#[test]
fn the_page_comes_back_after_its_gateway() {
    let (mut boxyard, port) = Boxyard::start_on_port();
    boxyard.expect_error("");
    boxyard.docker(&["create", "--name", "before", "busybox"]).ok();
    let browser = open(port);
    browser.wait_for_text("#containers", "the container", |text| text.contains("before"));
    // The state passes quickly, so the page itself is asked to note it.
    browser.run(
        "window.lost = 0; new MutationObserver(() => { \
           if (document.querySelector('#connection').textContent.startsWith('Connection lost')) window.lost += 1; \
         }).observe(document.querySelector('#connection'), {childList: true, characterData: true, subtree: true})",
    );
    assert_eq!(boxyard.kill_service("boxyard-gateway"), 1);
    wait_until("the page to say that the connection is lost", 60, || {
        (browser.run("return window.lost") != 0).then_some(())
    });
    boxyard.wait_ready();
    boxyard.docker(&["rm", "before"]).ok();
    boxyard.docker(&["create", "--name", "after", "busybox"]).ok();
    browser.wait_for_text("#connection", "that it is live again", |text| text == "Live");
    browser.wait_for_text("#containers", "what happened meanwhile", |text| {
        text.contains("after") && !text.contains("before")
    });
    is_the_same_page(&browser);
    drop(browser);
    boxyard.stop();
}

#[test]
fn a_pull_is_shown_while_it_goes_on() {
    let (boxyard, port) = Boxyard::start_on_port();
    let registry = Registry::start();
    let pushed = format!("{}/slow:1", registry.host());
    boxyard.docker(&["tag", "busybox", &pushed]).ok();
    boxyard.docker(&["push", &pushed]).ok();
    boxyard.docker(&["rmi", "busybox", &pushed]).ok();
    let wire = Throttle::new(registry.port(), 50_000);
    let slow = format!("{}/slow:1", wire.host());
    let browser = open(port);
    assert_eq!(browser.run("return document.querySelector('#transfers').hidden"), true, "nothing moves yet");
    let mut pull = client(boxyard.socket())
        .args(["pull", &slow])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker starts");
    browser.wait_for_text("#transfers", "the pull", |text| text.contains(&slow) && text.contains("0 of 1"));
    wait_until("bytes to have moved", 60, || {
        let list = Client::tcp(port).send("GET", "/boxyard/v1/transfers", "", "").expect("an answer").json();
        let [done, all] = ["bytes_done", "bytes"].map(|key| list["items"][0][key].as_u64().unwrap_or(0));
        (0 < done && done < all).then_some(())
    });
    wire.set_rate(100_000_000);
    assert!(pull.wait().expect("it ends").success(), "the pull");
    browser.wait_for_text("#images", "the image", |text| text.contains(&slow));
    let hidden = "return document.querySelector('#transfers').hidden";
    wait_until("the list to be gone", 60, || (browser.run(hidden) == true).then_some(()));
    is_the_same_page(&browser);
    drop(browser);
    boxyard.stop();
}
