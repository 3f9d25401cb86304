//go:build cgo

package forkyard_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	forkyard "github.com/forkyard/forkyard/bindings-go"
)

// guidedPolicy allows one host.
var guidedPolicy = forkyard.NetworkPolicy{
	AllowOut:       []string{"one.example:443"},
	DenyOut:        []string{"*.example"},
	MaxConnections: 7,
	BandwidthKbps:  800,
}

// guided makes a machine that may reach one host.
func guided(t *testing.T, ctx context.Context) *forkyard.Sandbox {
	t.Helper()
	options := small
	options.Network = guidedPolicy
	return create(t, ctx, options)
}

// has checks what the machine may reach, and whether it has a network for that.
func has(t *testing.T, got forkyard.NetworkInfo, policy forkyard.NetworkPolicy, link forkyard.NetworkLink) {
	t.Helper()
	equal(t, "the link", got.Link, link)
	// No rules are an empty list on the way back.
	for _, rules := range []*[]string{&policy.AllowOut, &policy.DenyOut} {
		*rules = append([]string{}, *rules...)
	}
	if !reflect.DeepEqual(got.Policy, policy) {
		t.Fatalf("the policy is %+v, not %+v", got.Policy, policy)
	}
}

// curl answers how it ends in the machine, and what it got.
func curl(t *testing.T, ctx context.Context, machine *forkyard.Sandbox, url string) (int, string) {
	t.Helper()
	result, err := machine.Run(ctx, forkyard.Cmd("curl", "-s", "--max-time", "60", url))
	check(t, err)
	return result.ExitCode, result.StdoutText()
}

func TestAMachineReachesNothingByDefault(t *testing.T) {
	ctx := bounded(t)
	machine := create(t, ctx, small)
	info, err := machine.Network(ctx)
	check(t, err)
	has(t, info, forkyard.NetworkPolicy{}, forkyard.NetworkLinkDown)
	code, _ := curl(t, ctx, machine, "http://203.0.113.7/")
	equal(t, "curl's exit code", code, 7)
	events, err := machine.NetworkEvents(ctx, "", 0)
	check(t, err)
	if len(events.Events) != 0 || events.Cursor != "" {
		t.Fatalf("%+v happened", events)
	}
	// A policy changes while the machine runs.
	info, err = machine.UpdateNetwork(ctx, forkyard.NetworkPolicy{AllowInternetAccess: true})
	check(t, err)
	has(t, info, forkyard.NetworkPolicy{AllowInternetAccess: true}, forkyard.NetworkLinkUp)
	up, err := machine.ReadFile(ctx, "/etc/resolv.conf")
	check(t, err)
	equal(t, "its resolver", string(up), "nameserver 10.0.2.2\n")
	info, err = machine.UpdateNetwork(ctx, forkyard.NetworkPolicy{})
	check(t, err)
	has(t, info, forkyard.NetworkPolicy{}, forkyard.NetworkLinkDown)
}

func TestNetworkEventsCome(t *testing.T) {
	ctx := bounded(t)
	machine := guided(t, ctx)
	info, err := machine.Network(ctx)
	check(t, err)
	has(t, info, guidedPolicy, forkyard.NetworkLinkUp)
	code, _ := curl(t, ctx, machine, "http://other.example/")
	equal(t, "curl's exit code", code, 6)
	first, err := machine.NetworkEvents(ctx, "", 10*time.Second)
	check(t, err)
	if len(first.Events) == 0 {
		t.Fatal("nothing happened")
	}
	refused := first.Events[len(first.Events)-1]
	if time.Since(refused.At).Abs() > time.Minute {
		t.Fatalf("it happened at %v", refused.At)
	}
	refused.At = time.Time{}
	equal(t, "the event", refused, forkyard.NetworkEvent{
		Kind:     forkyard.NetworkEventKindDNSRefused,
		Protocol: forkyard.NetworkProtocolDNS,
		Name:     "other.example",
		Verdict:  forkyard.NetworkVerdictRefused,
		Rule:     "*.example",
	})

	// After all that happened there is nothing, until something happens.
	all, err := machine.NetworkEvents(ctx, "", 0)
	check(t, err)
	began := time.Now()
	none, err := machine.NetworkEvents(ctx, all.Cursor, 500*time.Millisecond)
	check(t, err)
	equal(t, "how many events came", len(none.Events), 0)
	if took := time.Since(began); took < 490*time.Millisecond {
		t.Fatalf("it waited for %v only", took)
	}
	type answer struct {
		forkyard.NetworkEvents
		error
	}
	coming := make(chan answer, 1)
	go func() {
		events, err := machine.NetworkEvents(ctx, all.Cursor, 20*time.Second)
		coming <- answer{events, err}
	}()
	code, _ = curl(t, ctx, machine, "http://third.example/")
	equal(t, "curl's exit code", code, 6)
	came := <-coming
	check(t, came.error)
	equal(t, "what came", came.Events[0].Name, "third.example")

	// Waiting ends with its context.
	all, err = machine.NetworkEvents(ctx, "", 0)
	check(t, err)
	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if _, err := machine.NetworkEvents(short, all.Cursor, 25*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v does not say that the time is up", err)
	}
}

func TestForksAndSwarmsHaveAPolicy(t *testing.T) {
	ctx := bounded(t)
	original := guided(t, ctx)
	nothing := forkyard.NetworkPolicy{}
	for _, test := range []struct {
		network, want *forkyard.NetworkPolicy
		link          forkyard.NetworkLink
	}{{nil, &guidedPolicy, forkyard.NetworkLinkUp}, {&nothing, &nothing, forkyard.NetworkLinkDown}} {
		forks, err := original.Fork(ctx, forkyard.ForkOptions{Network: test.network})
		check(t, err)
		defer terminate(t, forks[0])
		info, err := forks[0].Network(ctx)
		check(t, err)
		has(t, info, *test.want, test.link)
	}

	machine := small
	machine.Network.AllowOut = []string{"one.example"}
	report, err := forkyard.Swarm(ctx, forkyard.SwarmOptions{Machine: machine}, []int{1},
		func(ctx context.Context, sandbox *forkyard.Sandbox, _ int) ([]string, error) {
			info, err := sandbox.Network(ctx)
			return info.Policy.AllowOut, err
		})
	check(t, err)
	if got := report.Results(); !reflect.DeepEqual(got, [][]string{{"one.example"}}) {
		t.Fatalf("a swarm's machine may reach %q", got)
	}
}

func TestAPageGoesThroughTheGateway(t *testing.T) {
	ctx := bounded(t)
	host := pageHost(t)
	listener, err := net.Listen("tcp", host)
	check(t, err)
	page := strings.Repeat("x", 100_000)
	web := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(page)) })}
	go web.Serve(listener)
	defer web.Close()

	options := small
	options.Network.AllowOut = []string{host}
	machine := create(t, ctx, options)
	code, got := curl(t, ctx, machine, "http://"+host+"/")
	equal(t, "curl's exit code", code, 0)
	equal(t, "the page", got, page)
	var events []forkyard.NetworkEvent
	for cursor := ""; len(events) < 2; {
		more, err := machine.NetworkEvents(ctx, cursor, 10*time.Second)
		check(t, err)
		if len(more.Events) == 0 {
			t.Fatalf("of a connection and its end, %+v is told", events)
		}
		events, cursor = append(events, more.Events...), more.Cursor
	}
	equal(t, "the first event", events[0].Kind, forkyard.NetworkEventKindConnectionOpened)
	ended := events[1]
	equal(t, "the second event", ended.Kind, forkyard.NetworkEventKindConnectionEnded)
	equal(t, "its protocol", ended.Protocol, forkyard.NetworkProtocolTCP)
	equal(t, "its verdict", ended.Verdict, forkyard.NetworkVerdictAllowed)
	equal(t, "its rule", ended.Rule, host)
	equal(t, "where it went", net.JoinHostPort(ended.Address, strconv.Itoa(ended.Port)), host)
	if ended.BytesIn <= int64(len(page)) || ended.BytesOut <= 0 {
		t.Fatalf("%d bytes came in and %d went out", ended.BytesIn, ended.BytesOut)
	}
	info, err := machine.Network(ctx)
	check(t, err)
	// As many as its resolver got and as there were frames, whatever their number.
	info.Counters.DNSQueries, info.Counters.DroppedFrames = 0, 0
	equal(t, "what was counted", info.Counters, forkyard.NetworkCounters{
		BytesOut: ended.BytesOut, BytesIn: ended.BytesIn, ConnectionsTotal: 1,
	})
}

func TestWhatIsWrongWithAPolicyIsNamed(t *testing.T) {
	ctx := bounded(t)
	machine := guided(t, ctx)
	update := func(policy forkyard.NetworkPolicy) error {
		_, err := machine.UpdateNetwork(ctx, policy)
		return err
	}
	events := func(cursor string, wait time.Duration) error {
		_, err := machine.NetworkEvents(ctx, cursor, wait)
		return err
	}
	create := func(policy forkyard.NetworkPolicy) error {
		_, err := forkyard.Create(ctx, forkyard.Options{Image: "base", Network: policy})
		return err
	}
	for want, err := range map[string]error{
		"allow_out[0]: 'https://pypi.org'": create(forkyard.NetworkPolicy{AllowOut: []string{"https://pypi.org"}}),
		"MaxConnections must not be nega":  update(forkyard.NetworkPolicy{MaxConnections: -1}),
		"max_connections must be between":  update(forkyard.NetworkPolicy{MaxConnections: 5000}),
		"bandwidth_kbps must be between 8": update(forkyard.NetworkPolicy{BandwidthKbps: 7}),
		"no cursor":                        events("yesterday", 0),
		"negative":                         events("", -1),
	} {
		if !errors.Is(err, forkyard.CodeInvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	info, err := machine.Network(ctx)
	check(t, err)
	has(t, info, guidedPolicy, forkyard.NetworkLinkUp)
}
