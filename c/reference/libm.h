/* What the reference takes from libm, declared here because the machine may lack libc's headers. */
#ifndef LLM_REFERENCE_LIBM_H
#define LLM_REFERENCE_LIBM_H

double exp(double x);
double log(double x);
double pow(double x, double y);
double sqrt(double x);
double tanh(double x);

#endif
