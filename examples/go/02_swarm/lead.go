package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// leadByRule is what the lead concludes without a model.
func leadByRule(reviews []review) string {
	var sum float64
	worst, first := reviews[0], finding{Cost: -1}
	for _, it := range reviews {
		sum += it.Score
		if it.Score < worst.Score {
			worst = it
		}
		for _, finding := range it.Findings {
			if finding.Cost > first.Cost {
				first = finding
			}
		}
	}
	mean, verdict := sum/float64(len(reviews)), "not ready to merge"
	if mean >= 8 {
		verdict = "ready to merge"
	}
	return fmt.Sprintf("%.1f of 10 over %d perspectives: %s. Weakest is %s (%.1f). Begin with %s:%d: %s",
		mean, len(reviews), verdict, worst.Perspective, worst.Score, first.File, first.Line, first.Message)
}

// leadByModel is what a language model concludes.
func leadByModel(ctx context.Context, reviews []review, key string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	list, err := json.Marshal(reviews)
	if err != nil {
		return "", err
	}
	question := "You lead a code review. In three sentences: is it ready, and what comes first?\n" + string(list)
	body, err := json.Marshal(map[string]any{
		"model":    cmp.Or(os.Getenv("FORKYARD_LEAD_MODEL"), "gpt-4o-mini"),
		"messages": []map[string]string{{"role": "user", "content": question}},
	})
	if err != nil {
		return "", err
	}
	base := strings.TrimRight(cmp.Or(os.Getenv("OPENAI_BASE_URL"), "https://api.openai.com/v1"), "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/chat/completions", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	var answer struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", err
	}
	if len(answer.Choices) == 0 {
		return "", errors.New("it said nothing")
	}
	return answer.Choices[0].Message.Content, nil
}
