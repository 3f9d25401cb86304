//go:build cgo

package forkyard

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestTimesCross(t *testing.T) {
	for _, want := range []time.Time{
		time.Unix(0, 0), time.Unix(1, 5), time.Unix(-1, 0), time.Unix(-7, 999_999_999), time.Unix(1<<40, 1),
	} {
		var w writer
		w.time(want)
		if got := (&reader{w.data}).time(); !got.Equal(want) {
			t.Errorf("%v came back as %v", want, got)
		}
	}
}

func TestLengthsOfTimeCross(t *testing.T) {
	for _, want := range []time.Duration{0, 1, time.Second - 1, time.Hour + 1} {
		var w writer
		w.duration(want)
		if got := (&reader{w.data}).duration(); got != want {
			t.Errorf("%v came back as %v", want, got)
		}
	}
	var w writer
	w.uint64(math.MaxUint64)
	w.uint32(0)
	if got := (&reader{w.data}).duration(); got != math.MaxInt64 {
		t.Errorf("what is longer than Go can say came back as %v", got)
	}
}

func TestOptionalValuesCross(t *testing.T) {
	zero := time.Duration(0)
	for _, want := range []*time.Duration{nil, &zero} {
		var w writer
		writeOptional(&w, want, (*writer).duration)
		got := readOptional(&reader{w.data}, (*reader).duration)
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%v came back as %v", want, got)
		}
	}
	for _, want := range []time.Time{{}, time.Unix(0, 0)} {
		var w writer
		w.optionalTime(want)
		if got := (&reader{w.data}).optionalTime(); !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%v came back as %v", want, got)
		}
	}
}

func TestListsAndMapsCross(t *testing.T) {
	var w writer
	writeSlice(&w, []string{"grüße", ""}, (*writer).string)
	writeMap(&w, map[string]int{"a": -1}, (*writer).int32)
	r := &reader{w.data}
	list, dictionary := readSlice(r, (*reader).string), readMap(r, (*reader).int32)
	if len(list) != 2 || list[0] != "grüße" || len(dictionary) != 1 || dictionary["a"] != -1 || len(r.data) != 0 {
		t.Errorf("they came back as %q, %v and %d bytes", list, dictionary, len(r.data))
	}
}

func TestTheFirstThatCannotCrossIsTold(t *testing.T) {
	var w writer
	w.string("\xff")
	w.duration(-1)
	var failure *Error
	if !errors.As(w.err, &failure) || failure.Message != `"\xff" is not UTF-8` {
		t.Errorf("%v is told", w.err)
	}
}
