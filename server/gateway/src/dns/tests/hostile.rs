//! Upstreams that lie, and names that lead inside.

use hickory_proto::rr::rdata::TXT;

use super::*;

#[tokio::test]
async fn what_is_never_reachable_is_held_back() {
    for (kind, held) in [
        (RecordType::A, "10.0.0.1"),
        (RecordType::A, "127.0.0.1"),
        (RecordType::A, "169.254.169.254"),
        (RecordType::AAAA, "::1"),
        (RecordType::AAAA, "::ffff:10.0.0.1"),
        (RecordType::AAAA, "fd00:ec2::254"),
        (RecordType::AAAA, "64:ff9b::a00:1"),
    ] {
        let server = Server::with(vec![address("evil.example", 0, held)]).await;
        let bench = bench(OPEN, &[&server]);
        let reply = bench.ask("evil.example", kind).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{held}");
        assert_eq!(reply.answers.len(), 0, "{held}");
        assert_eq!(bench.given(held).len(), 0, "{held}");
        assert_eq!(bench.refusals(), [("evil.example".to_owned(), HELD_BACK.to_owned())], "{held}");
    }
}

#[tokio::test]
async fn an_address_that_changes_is_judged_each_time() {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |query, _| {
        let rebound = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
        let records = [
            address("evil.example", 0, if rebound { "192.168.0.1" } else { "203.0.113.1" }),
            address("evil.example", 0, if rebound { "203.0.113.2" } else { "203.0.113.1" }),
        ];
        vec![Send::Own(answer(query, &records).to_vec().unwrap())]
    })
    .await;
    let bench = bench(OPEN, &[&server]);
    assert_eq!(addresses(&bench.ask("evil.example", RecordType::A).await), ["203.0.113.1", "203.0.113.1"]);
    assert_eq!(bench.given("203.0.113.1"), ["evil.example"], "though its TTL is 0");
    assert_eq!(addresses(&bench.ask("evil.example", RecordType::A).await), ["203.0.113.2"]);
    assert_eq!(bench.refusals(), [], "something was given");
}

/// What a hostile server sends before, or instead of, the right answer.
fn strays(query: &Message) -> Vec<Vec<u8>> {
    let evil = [address("pypi.org", 300, "203.0.113.66")];
    let mut wrong_id = answer(query, &evil);
    wrong_id.metadata.id ^= 1;
    let mut wrong_question = answer(query, &evil);
    wrong_question.queries[0] = Query::query(name("other.example"), RecordType::A);
    let mut wrong_kind = answer(query, &evil);
    wrong_kind.queries[0] = Query::query(name("pypi.org"), RecordType::AAAA);
    let mut no_question = answer(query, &evil);
    no_question.queries.clear();
    let mut echo = query.clone();
    echo.add_answers(evil.iter().cloned());
    let good = answer(query, &evil).to_vec().unwrap();
    let mut counts = good.clone();
    counts[4..12].fill(0xff);
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    let mut looped = good.clone();
    looped[12..14].copy_from_slice(&[0xc0, 12]);
    let huge = answer(query, &vec![evil[0].clone(); 200]).to_vec().unwrap();
    let whole = [&wrong_id, &wrong_question, &wrong_kind, &no_question, &echo];
    let mut strays: Vec<Vec<u8>> = whole.map(|message| message.to_vec().unwrap()).into();
    strays.extend([counts, cut, looped, huge, Vec::new(), vec![0; 12], vec![0xff; 1200]]);
    strays
}

#[tokio::test]
async fn what_is_no_answer_is_passed_over() {
    let server = Server::start(|query, _| {
        let evil = answer(query, &[address("pypi.org", 300, "203.0.113.66")]).to_vec().unwrap();
        let right = answer(query, &[address("pypi.org", 300, "203.0.113.1")]).to_vec().unwrap();
        let strays = strays(query).into_iter().map(Send::Own);
        std::iter::once(Send::Foreign(evil)).chain(strays).chain([Send::Own(right)]).collect()
    })
    .await;
    let bench = bench(OPEN, &[&server]);
    assert_eq!(addresses(&bench.ask("pypi.org", RecordType::A).await), ["203.0.113.1"]);
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn no_answer_is_a_failure_within_the_timeout() {
    let hostile = Server::start(|query, transport| match transport {
        Transport::Udp => strays(query).into_iter().map(Send::Own).collect(),
        Transport::Tcp => Vec::new(),
    })
    .await;
    let silent = Server::start(|_, _| Vec::new()).await;
    for server in [&hostile, &silent] {
        let config = DnsConfig { upstreams: vec![server.address], timeout_ms: 300, ..DnsConfig::default() };
        let bench = bench_with(OPEN, config);
        let reply = tokio::time::timeout(Duration::from_secs(20), bench.ask("pypi.org", RecordType::A))
            .await
            .unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(server.asked() > 0);
    }
    assert_eq!(
        bench(OPEN, &[]).code("pypi.org", RecordType::A).await,
        ResponseCode::ServFail,
        "nobody to ask"
    );
}

#[tokio::test]
async fn an_answer_without_bounds_is_cut() {
    let server = Server::start(|query, transport| {
        let text = TXT::new(vec!["x".repeat(250); 80]);
        let record = Record::from_rdata(query.queries[0].name().clone(), 300, RData::TXT(text));
        let message = answer(query, &[record]);
        let message = if transport == Transport::Udp { message.truncate() } else { message };
        vec![Send::Own(message.to_vec().unwrap())]
    })
    .await;
    let bench = bench(OPEN, &[&server]);
    assert_eq!(bench.code("big.example", RecordType::TXT).await, ResponseCode::ServFail);
}
