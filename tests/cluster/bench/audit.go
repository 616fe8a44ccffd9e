package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// An auditLog tells of every request of Blixt's ServiceAccounts that writes, whether anything changed by it or not, and whether it
// was granted or not.
type auditLog struct {
	file *os.File
	// The beginning of a line whose end is not written yet.
	begun []byte
}

// A write is an entry of the log.
type write struct {
	Verb string    `json:"verb"`
	Time time.Time `json:"requestReceivedTimestamp"`
	User struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	Status struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

func (w write) isLease() bool {
	return w.Object.Resource == "leases"
}

func (w write) String() string {
	of := w.Object
	return fmt.Sprintf("%s %s/%s %s/%s by %s: %d", w.Verb, of.Resource, of.Subresource, of.Namespace, of.Name, w.User.Username, w.Status.Code)
}

// follow begins at the log's end.
func follow(path string) (*auditLog, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	_, err = file.Seek(0, io.SeekEnd)
	return &auditLog{file: file}, err
}

// next are the writes since it was last asked.
func (l *auditLog) next() ([]write, error) {
	text, err := io.ReadAll(l.file)
	if err != nil {
		return nil, err
	}
	text = append(l.begun, text...)
	end := bytes.LastIndexByte(text, '\n') + 1
	l.begun = bytes.Clone(text[end:])
	var writes []write
	for line := range bytes.Lines(text[:end]) {
		var next write
		if err := json.Unmarshal(line, &next); err != nil {
			return nil, fmt.Errorf("%s: %w", l.file.Name(), err)
		}
		writes = append(writes, next)
	}
	return writes, nil
}

// untilQuiet waits until nothing is written any more but Leases, and answers what was, and when for the last time.
func (l *auditLog) untilQuiet() (writes []write, last time.Time, err error) {
	last = time.Now()
	renewals := 0
	for end := last.Add(busy); time.Since(last) < quiet || renewals == 0; time.Sleep(time.Second) {
		if time.Now().After(end) {
			return nil, last, fmt.Errorf("%s: not quiet within %s; the last writes: %v", l.file.Name(), busy, writes[max(0, len(writes)-5):])
		}
		all, err := l.next()
		if err != nil {
			return nil, last, err
		}
		for _, next := range all {
			if next.isLease() {
				// Whoever leads renews its Lease: a log that does not tell of that would tell of nothing.
				renewals++
			} else {
				writes = append(writes, next)
				last = next.Time
			}
		}
	}
	return writes, last, nil
}
